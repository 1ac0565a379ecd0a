// Numbers, durations and times as the command line writes them.

/** Signs of the states, so that colour never stands alone. */
export const SIGNS = {
  pending: '·', running: '▶', succeeded: '✓', failed: '✕', stopped: '⊖', cancelled: '⊘',
  paused: '‖', finished: '■', removed: '–',
};

/** A sweep's counts with the trials that were stopped early apart from the cancelled ones. @param {any} of @returns {any} */
export function stoppedApart(of) {
  const stopped = of.stopped ?? 0;
  return { ...of, stopped, cancelled: of.cancelled - stopped };
}

/** A whole number with commas. @param {number|null|undefined} n @returns {string} */
export function count(n) {
  if (n === null || n === undefined || Number.isNaN(n)) return '–';
  return Math.round(n).toString().replace(/\B(?=(\d{3})+(?!\d))/g, ',');
}

/** A value with five significant digits. Text stays as it is. @param {unknown} v @returns {string} */
export function number(v) {
  if (v === null || v === undefined) return '–';
  if (typeof v !== 'number') return typeof v === 'object' ? JSON.stringify(v) : String(v);
  if (Number.isInteger(v) && Math.abs(v) < 1e15) return String(v);
  if (!Number.isFinite(v)) return String(v);
  const a = Math.abs(v);
  if (a >= 1e6 || (a > 0 && a < 1e-4)) return trimZeros(v.toExponential(4));
  return trimZeros(v.toPrecision(5));
}

/** @param {string} s */
function trimZeros(s) {
  const [mantissa, exponent] = s.split('e');
  const short = mantissa.includes('.') ? mantissa.replace(/0+$/, '').replace(/\.$/, '') : mantissa;
  return exponent === undefined ? short : `${short}e${exponent}`;
}

/** A share of 1 in per cent. @param {number|null|undefined} v @returns {string} */
export function percent(v) {
  if (v === null || v === undefined || !Number.isFinite(v)) return '–';
  const p = v * 100;
  return `${p >= 10 || p === 0 ? p.toFixed(p >= 99.95 || p === 0 ? 0 : 1) : p.toPrecision(2)} %`;
}

/** Seconds as a length of time, like 1h2m3s. @param {number|null|undefined} seconds @returns {string} */
export function duration(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return '–';
  if (seconds < 0) return `-${duration(-seconds)}`;
  if (seconds < 1) return `${Math.round(seconds * 1000)}ms`;
  if (seconds < 60) return `${trimZeros(seconds.toFixed(1))}s`;
  const s = Math.round(seconds);
  const days = Math.floor(s / 86400), hours = Math.floor(s / 3600) % 24, minutes = Math.floor(s / 60) % 60;
  if (days > 0) return `${days}d${hours}h`;
  if (hours > 0) return `${hours}h${minutes}m${s % 60}s`;
  return `${minutes}m${s % 60}s`;
}

/** A length of time in one unit, for what is read at a glance. @param {number|null|undefined} seconds @returns {string} */
export function roughly(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return '–';
  for (const [unit, size] of [['d', 86400], ['h', 3600], ['min', 60]]) {
    if (seconds >= 2 * size) return `${Math.round(seconds / size)} ${unit}`;
  }
  return `${Math.max(0, Math.round(seconds))} s`;
}

/** Bytes with a binary unit, like 3.1 GiB. @param {number|null|undefined} n @returns {string} */
export function bytes(n) {
  if (n === null || n === undefined || n < 0) return '–';
  let unit = 0;
  while (n >= 1024 && unit < 5) {
    n /= 1024;
    unit++;
  }
  return `${unit > 0 && n < 10 ? n.toFixed(1) : Math.round(n)} ${['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'][unit]}`;
}

/** Trials in a second. @param {number|null|undefined} v @returns {string} */
export function rate(v) {
  if (!v || !Number.isFinite(v)) return '0/s';
  if (v < 0.01) return `${trimZeros((v * 3600).toPrecision(2))}/h`;
  return `${v >= 100 ? count(v) : trimZeros(v.toPrecision(v >= 10 ? 3 : 2))}/s`;
}

const utc = () => localStorage.getItem('mlf-zone') === 'utc';
const two = (/** @type {number} */ n) => String(n).padStart(2, '0');

/** A time of day, with the date when it is another day. @param {string|number|Date|null|undefined} when @returns {string} */
export function time(when) {
  if (when === null || when === undefined) return '–';
  const d = new Date(when), today = new Date();
  if (Number.isNaN(d.getTime())) return '–';
  const parts = (/** @type {Date} */ t) => (utc()
    ? [t.getUTCFullYear(), t.getUTCMonth() + 1, t.getUTCDate(), t.getUTCHours(), t.getUTCMinutes(), t.getUTCSeconds()]
    : [t.getFullYear(), t.getMonth() + 1, t.getDate(), t.getHours(), t.getMinutes(), t.getSeconds()]);
  const [y, mo, day, h, mi, s] = parts(d);
  const clock = `${two(h)}:${two(mi)}:${two(s)}`;
  const [ty, tmo, tday] = parts(today);
  return y === ty && mo === tmo && day === tday ? clock : `${y}-${two(mo)}-${two(day)} ${clock}`;
}

/** The same in UTC, for tooltips. @param {string|number|Date|null|undefined} when @returns {string} */
export function utcTime(when) {
  if (when === null || when === undefined) return '';
  const d = new Date(when);
  return Number.isNaN(d.getTime()) ? '' : `${d.toISOString().slice(0, 19).replace('T', ' ')} UTC`;
}

/** How long ago. @param {string|number|null|undefined} when @param {number} now in ms @returns {string} */
export function ago(when, now) {
  if (when === null || when === undefined) return '–';
  return `${roughly(Math.max(0, (now - new Date(when).getTime()) / 1000))} ago`;
}

/** "1 trial", "1,200 trials". @param {number} n @param {string} word */
export function plural(n, word) {
  return `${count(n)} ${word}${n === 1 ? '' : 's'}`;
}

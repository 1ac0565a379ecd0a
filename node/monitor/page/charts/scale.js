// Scales, ticks and short numbers for axes. No DOM.

/** A number for a tick or a cell: few digits, a small exponent. @param {number|null|undefined} v @param {number} [digits] */
export function short(v, digits = 3) {
  if (v === null || v === undefined || Number.isNaN(v)) return '–';
  if (!Number.isFinite(v)) return v > 0 ? '∞' : '−∞';
  if (v === 0) return '0';
  const a = Math.abs(v);
  if (a >= 1e15 || a < 1e-4) return trim(v.toExponential(Math.max(0, digits - 1)));
  for (const [unit, size] of /** @type {[string, number][]} */ ([['G', 1e9], ['M', 1e6], ['k', 1e4]])) {
    if (a >= size) return trim((v / (unit === 'k' ? 1e3 : size)).toPrecision(digits)) + unit;
  }
  return a >= 1000 ? String(Math.round(v)) : trim(v.toPrecision(digits));
}

/** @param {string} s */
function trim(s) {
  const [m, e] = s.split('e');
  const t = m.includes('.') ? m.replace(/0+$/, '').replace(/\.$/, '') : m;
  return e === undefined ? t : `${t}e${Number(e)}`;
}

/** Round values between two ends, about n of them. @param {number} lo @param {number} hi @param {number} n @returns {number[]} */
export function ticks(lo, hi, n) {
  if (!(hi > lo) || !Number.isFinite(hi - lo) || n < 1) return Number.isFinite(lo) ? [lo] : [];
  const raw = (hi - lo) / n, power = 10 ** Math.floor(Math.log10(raw));
  const step = power * ([1, 2, 5, 10].find(m => m * power >= raw * 0.9999) ?? 10);
  const out = [];
  for (let i = Math.ceil(lo / step - 1e-9); i * step <= hi + step * 1e-9; i++) out.push(Number((i * step).toPrecision(12)));
  return out;
}

/** Powers of ten between two ends, and multiples of them when these are few. @param {number} lo @param {number} hi @param {number} n @returns {number[]} */
export function logTicks(lo, hi, n) {
  if (!(lo > 0) || !(hi > lo)) return ticks(lo, hi, n);
  const from = Math.floor(Math.log10(lo)), to = Math.ceil(Math.log10(hi));
  const every = Math.max(1, Math.ceil((to - from) / n));
  for (const multiples of [[1], [1, 3], [1, 2, 5]]) {
    const out = [];
    for (let p = from; p <= to; p += every) for (const m of multiples) out.push(m * 10 ** p);
    const inside = out.filter(v => v >= lo * 0.999 && v <= hi * 1.001);
    if (inside.length >= 3 || multiples.length === 3) return inside.length >= 2 ? inside : ticks(lo, hi, n);
  }
  return [];
}

/** Steps of time that people use, in seconds. */
const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800];

/** Ticks of a length of time. @param {number} lo @param {number} hi @param {number} n @returns {number[]} */
export function timeTicks(lo, hi, n) {
  if (hi - lo < n) return ticks(lo, hi, n);
  const step = STEPS.find(s => (hi - lo) / s <= n) ?? STEPS[STEPS.length - 1] * Math.ceil((hi - lo) / n / STEPS[STEPS.length - 1]);
  const out = [];
  for (let t = Math.ceil(lo / step) * step; t <= hi; t += step) out.push(t);
  return out;
}

/** A time on an axis that is `width` seconds wide, like 0:05:00. @param {number} s */
export function clock(s) {
  const sign = s < 0 ? '−' : '', t = Math.abs(s);
  if (t < 60 && t % 1) return `${sign}${trim(t.toPrecision(3))}s`;
  const d = Math.floor(t / 86400), h = Math.floor(t / 3600) % 24, m = Math.floor(t / 60) % 60, sec = Math.floor(t % 60);
  if (d) return `${sign}${d}d${h ? `${h}h` : ''}`;
  if (h) return `${sign}${h}h${m ? `${m}m` : ''}`;
  if (m) return `${sign}${m}m${sec ? `${sec}s` : ''}`;
  return `${sign}${sec}s`;
}

/** A scale from values to pixels. @param {number} lo @param {number} hi @param {number} from @param {number} to @param {boolean} [log] */
export function scale(lo, hi, from, to, log = false) {
  const useLog = log && lo > 0 && hi > lo;
  const f = useLog ? Math.log : (/** @type {number} */ v) => v;
  const a = f(lo), width = f(hi) - a || 1;
  return {
    lo, hi, log: useLog,
    /** @param {number} v */
    at: v => from + (f(v) - a) / width * (to - from),
    /** @param {number} px */
    value: px => {
      const t = a + (px - from) / (to - from || 1) * width;
      return useLog ? Math.exp(t) : t;
    },
  };
}

/** The place of a value among edges, as a share of all bins, by which bins are equally wide. @param {number[]} edges @param {number} v */
export function place(edges, v) {
  const n = edges.length - 1;
  if (n < 1) return 0;
  if (v <= edges[0]) return 0;
  if (v >= edges[n]) return 1;
  let lo = 0, hi = n;
  while (hi - lo > 1) {
    const mid = (lo + hi) >> 1;
    if (edges[mid] <= v) lo = mid;
    else hi = mid;
  }
  return (lo + (v - edges[lo]) / (edges[hi] - edges[lo] || 1)) / n;
}

/** The inverse of place. @param {number[]} edges @param {number} share */
export function unplace(edges, share) {
  const n = edges.length - 1, at = Math.min(Math.max(share, 0), 1) * n, i = Math.min(Math.floor(at), n - 1);
  return edges[i] + (edges[i + 1] - edges[i]) * (at - i);
}

/** The q-quantile of values that are finite. @param {(number|null)[]} values @param {number} q @returns {number} */
export function quantile(values, q) {
  const all = /** @type {number[]} */ (values.filter(v => v !== null && Number.isFinite(v))).sort((a, b) => a - b);
  if (all.length === 0) return NaN;
  const at = (all.length - 1) * q, i = Math.floor(at);
  return all[i] + ((all[i + 1] ?? all[i]) - all[i]) * (at - i);
}

/** A number in [0,1) that is the same for a trial each time. @param {number} index */
export function hash(index) {
  let x = (index ^ 0x9e3779b9) >>> 0;
  x = Math.imul(x ^ (x >>> 16), 0x85ebca6b);
  x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
  return ((x ^ (x >>> 16)) >>> 0) / 4294967296;
}

/** Labels that fit: every k-th of n in a length, with the last kept where it does not touch. @param {number} n @param {number} length @param {number} each */
export function every(n, length, each) {
  return Math.max(1, Math.ceil(n * each / Math.max(length, 1)));
}

// The trials of a sweep in a table of any length: those that are selected, by any column.
import { useCallback, useEffect, useRef, useState } from 'preact/hooks';
import { html } from './html.js';
import { ask, get, search, sweepPath } from './api.js';
import { count, duration, number } from './format.js';
import { useKeys } from './keys.js';
import { Table, rowsOf } from './table.js';
import { Panel, State, Time } from './ui.js';
import { setView, splitFilter, togglePin, view } from './view.js';
import { save } from './charts/export.js';

/** @param {{of: any, total: number|null}} props The number of trials that match; null for all of the sweep */
export function Trials({ of, total }) {
  const { sweep, id } = of;
  const objective = sweep.objective?.metric;
  const by = view.more.sort || (objective && sweep.metrics.includes(objective) ? objective : 'index');
  const desc = view.more.sort ? view.more.desc === '1' : by === objective && sweep.objective.goal === 'maximize';
  const text = search(view.where.map(splitFilter));
  const still = useStill(of.version, sweep.succeeded + sweep.failed + sweep.cancelled, by === 'index' && !text ? '' : `${by} ${desc} ${text}`);
  useKeys([{ key: 'R', text: 'show new results in the table of trials', run: still.apply }], [still.version, of.version]);
  const filters = view.where.map(splitFilter);
  const fetchPage = useCallback(async (/** @type {number} */ offset, /** @type {number} */ limit, /** @type {AbortSignal} */ signal) => rowsOf(
    await get(sweepPath(id, '/trials'), { signal, query: [...filters, ['offset', offset], ['limit', limit], ['sort', by], ['desc', desc]] })), [id, text, by, desc]);
  const onSort = (/** @type {string} */ name) => setView({ sort: name, desc: (by === name ? !desc : name === objective && sweep.objective.goal === 'maximize') ? '1' : '' });
  const [busy, setBusy] = useState(false);
  const saveCSV = async () => {
    setBusy(true);
    try {
      const resp = await ask(sweepPath(id, '/trials'), { query: [...filters, ['sort', by], ['desc', String(desc)]], headers: { Accept: 'text/csv' } });
      save(`${id}-trials.csv`, await resp.blob());
    } finally {
      setBusy(false);
    }
  };
  const rows = total ?? sweep.count;
  return html`<${Panel} title="Trials" class="trials" aside=${html`<span>${count(rows)} ${total === null ? 'in the sweep' : 'match'}</span>
      ${still.fresh > 0 && html`<button type="button" class="fresh" onClick=${still.apply} title="Show them, and move the rows to their new places (R)">${count(still.fresh)} new</button>`}
      <button type="button" class="quiet" disabled=${busy} onClick=${saveCSV}>CSV</button>
      <button type="button" class="quiet" title=${view.where.length ? 'Copies a command that lists trials in this order, without the filters' : 'Copies a command that asks for the same'} onClick=${() => navigator.clipboard?.writeText(command(id, by, desc))}>Copy command</button>`}>
    <${Table} label="Trials" fetchPage=${fetchPage} columns=${columnsOf(sweep)} total=${rows} version=${still.version} sort=${by} desc=${desc} onSort=${onSort} rows=${14}
      onOpen=${(/** @type {any} */ r) => of.open(r.index)} onSelect=${(/** @type {any} */ r) => togglePin(r.index)} isSelected=${(/** @type {any} */ r) => view.pins.includes(r.index)}
      onHover=${(/** @type {any} */ r) => setView({ hover: r.index })} empty=${html`<p class="empty">No trial matches.</p>`} />
  <//>`;
}

/** Whether somebody looks at rows: with the keyboard, with the pointer over them, or further down. */
function isRead() {
  const table = document.querySelector('.trials .table');
  return !!table && (table.contains(document.activeElement) || table.matches(':hover') || table.scrollTop > 0);
}

/**
 * A version that waits while rows are read, which new results would move: `fresh` is how many have come meanwhile, and `apply` shows them.
 * @param {unknown} version @param {number} ended trials @param {string} order '' where results move no row; of another order all is new
 */
function useStill(version, ended, order) {
  const [shown, setShown] = useState({ version, ended, order, held: false });
  const timer = useRef(0);
  const apply = () => setShown({ version, ended, order, held: false });
  useEffect(() => {
    const update = () => {
      clearTimeout(timer.current);
      if (!order || order !== shown.order || !isRead()) return apply();
      setShown(s => (s.held ? s : { ...s, held: true }));
      timer.current = setTimeout(update, 1000);
      return undefined;
    };
    if (version !== shown.version || order !== shown.order) update();
    return () => clearTimeout(timer.current);
  }, [version, order, shown.version]);
  return { version: shown.version, fresh: shown.held ? Math.max(0, ended - shown.ended) : 0, apply };
}

/** @param {any} s @returns {import('./table.js').Column[]} */
function columnsOf(s) {
  const pin = { name: 'pin', label: html`<span class="hidden">pinned</span>`, width: 5, render: (/** @type {any} */ r) => html`<input type="checkbox" aria-label=${`pin ${r.index}`}
    checked=${view.pins.includes(r.index)} onChange=${() => togglePin(r.index)} />` };
  const metrics = [...s.metrics].sort((a, b) => Number(b === s.objective?.metric) - Number(a === s.objective?.metric))
    .map(k => ({ name: `m[${k}]`, label: k, width: Math.max(10, k.length + 3), align: /** @type {const} */ ('right'), sort: k, render: (/** @type {any} */ r) => number(r[`m[${k}]`]) }));
  const params = s.keys.map((/** @type {string} */ k) => ({ name: `p[${k}]`, label: k, width: Math.max(11, k.length + 3), sort: k, render: (/** @type {any} */ r) => shownText(r[`p[${k}]`]) }));
  const narrow = matchMedia('(max-width: 600px)').matches;
  return [
    pin,
    { name: 'index', label: '#', width: 9, align: 'right', sort: 'index', render: r => count(r.index) },
    { name: 'state', width: 13, sort: 'state', render: r => html`<${State} state=${r.state} text=${r.class || r.state} />` },
    ...(narrow ? [...metrics, ...params] : [...params, ...metrics]),
    { name: 'wall_seconds', label: 'wall', width: 9, align: 'right', sort: 'wall', render: r => (r.wall_seconds ? duration(r.wall_seconds) : '–') },
    { name: 'node', width: 12 },
    { name: 'attempts', label: 'attempts', width: 11, align: 'right', sort: 'attempts' },
    { name: 'started', width: 20, sort: 'started', render: r => html`<${Time} at=${r.started} />` },
  ];
}

/** @param {unknown} v */
const shownText = v => (v === null || v === undefined ? '–' : typeof v === 'object' ? JSON.stringify(v) : String(v));

/** The command line that lists the same. @param {string} id @param {string} by @param {boolean} desc */
function command(id, by, desc) {
  return `mlfnode trials ${id} --sort ${by}${desc ? ' --desc' : ''}`;
}

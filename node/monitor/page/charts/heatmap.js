// How two axes act together, and all pairs at once.
import { useMemo, useRef, useState } from 'preact/hooks';
import { html } from '../html.js';
import { count, number, percent } from '../format.js';
import { chartQuery, setView, view } from '../view.js';
import { Choice, Figure, Layers, Tip, at, noValues, onKeys } from './figure.js';
import { brush } from './filter.js';
import * as heat from './heat.js';
import { useChart, useTheme, useWidth } from './use.js';

const FACETS = 9;
/** @type {[string, string][]} */
const STATS = [['mean', 'mean'], ['best', 'best'], ['median', 'median'], ['count', 'number of values'], ['failed', 'share that failed'], ['done', 'number that ended']];

/** @param {{of: any}} props */
export function HeatTab({ of }) {
  const keys = of.axes.map((/** @type {any} */ a) => a.key);
  if (keys.length < 2) return html`<p class="empty">${keys.length ? `${keys[0]} is the only parameter with more than one value` : 'Every parameter has one value'}: there is no pair to combine.</p>`;
  const x = keys.includes(view.more.x) ? view.more.x : of.ranked[0];
  const y = keys.includes(view.more.y) && view.more.y !== x ? view.more.y : of.ranked.find((/** @type {string} */ k) => k !== x);
  return html`<${Heat} of=${of} keys=${keys} x=${x} y=${y} /><${Matrix} of=${of} />`;
}

/** @param {{of: any, keys: string[], x: string, y: string}} props */
function Heat({ of, keys, x, y }) {
  const moved = useRef(0), stat = view.more.stat || 'mean';
  const thirds = of.axes.filter((/** @type {any} */ a) => a.key !== x && a.key !== y && a.levels.length <= FACETS).map((/** @type {any} */ a) => a.key);
  const z = thirds.includes(view.more.z) ? view.more.z : '';
  const answer = useChart(of.id, 'heat', chartQuery({ x, y, z, stat }), { version: of.version, moved });
  const rows = (/** @type {any} */ d) => ({
    columns: [...(d.z ? [d.z.key] : []), d.y.key, d.x.key, d.stat, 'n'],
    rows: d.cells.flatMap((/** @type {any} */ c, /** @type {number} */ k) => c.value.flatMap((/** @type {any[]} */ r, /** @type {number} */ j) => r.map((v, i) => (
      [...(d.z ? [d.z.levels[k].label] : []), d.y.levels[j].label, d.x.levels[i].label, v, c.n[j][i]])))),
  });
  const tools = html`<${Choice} label="x" value=${x} options=${keys} onChange=${(/** @type {string} */ v) => setView({ x: v, y: v === y ? x : y })} />
    <button type="button" class="quiet" title="Swap the axes" aria-label="Swap the axes" onClick=${() => setView({ x: y, y: x })}>⇄</button>
    <${Choice} label="y" value=${y} options=${keys.filter(k => k !== x)} onChange=${(/** @type {string} */ v) => setView({ x, y: v })} />
    ${thirds.length > 0 && html`<${Choice} label="a map for each" value=${z} options=${[['', '–'], ...thirds]} onChange=${(/** @type {string} */ v) => setView({ z: v })} />`}
    <${Choice} label="shows" value=${stat} options=${STATS} onChange=${(/** @type {string} */ v) => setView({ stat: v === 'mean' ? '' : v })} />`;
  return html`<${Figure} title="Heat map" name=${`${of.id}-${x}-${y}`} answer=${answer} moved=${moved} rows=${rows} tools=${tools}
    empty=${(/** @type {any} */ d) => (['failed', 'done', 'count'].includes(stat) ? null : noValues(d, of))}
    note="Drag over cells to select them, or use the arrow keys and Enter. A diagonal marks a cell without a value yet.">
    ${(/** @type {any} */ d) => html`<${HeatPlot} data=${d} />`}
  <//>`;
}

/** @param {{data: any}} props */
function HeatPlot({ data }) {
  const t = useTheme(), [ref, width] = useWidth();
  const l = useMemo(() => heat.layout(data, width), [data, width]);
  const [pointed, setCursor] = useState(/** @type {any} */ (null));
  const [dragged, setDrag] = useState(/** @type {any} */ (null));
  const cursor = pointed && heat.has(data, pointed) ? pointed : null;
  const drag = dragged && heat.has(data, dragged.from) && heat.has(data, dragged.to) ? dragged : null;
  const select = (/** @type {any} */ a, /** @type {any} */ b) => {
    const between = (/** @type {number} */ m, /** @type {number} */ n) => /** @type {[number, number]} */ ([Math.min(m, n), Math.max(m, n)]);
    let where = brush(view.where, data.x, [between(a.i, b.i)]);
    where = brush(where, data.y, [between(a.j, b.j)]);
    if (data.z) where = brush(where, data.z, [[a.k, a.k]]);
    setView({ where });
  };
  const over = (/** @type {CanvasRenderingContext2D} */ c) => {
    if (drag) {
      const a = heat.box(l, { k: drag.from.k, i: Math.min(drag.from.i, drag.to.i), j: Math.max(drag.from.j, drag.to.j) });
      const b = heat.box(l, { k: drag.from.k, i: Math.max(drag.from.i, drag.to.i), j: Math.min(drag.from.j, drag.to.j) });
      outline(c, a.x, a.y, b.x + b.w - a.x, b.y + b.h - a.y, t);
    } else if (cursor) {
      const b = heat.box(l, cursor);
      outline(c, b.x, b.y, b.w, b.h, t);
    }
  };
  const move = (/** @type {PointerEvent} */ e) => {
    const p = at(e), on = heat.hit(l, p.x, p.y);
    if (drag && on && on.k === drag.from.k) setDrag({ ...drag, to: on });
    setCursor(on);
  };
  const down = (/** @type {PointerEvent} */ e) => {
    const p = at(e), on = heat.hit(l, p.x, p.y);
    if (!on || e.button !== 0) return;
    /** @type {HTMLElement} */ (e.currentTarget).setPointerCapture(e.pointerId);
    setDrag({ from: on, to: on });
  };
  const up = () => {
    if (drag) select(drag.from, drag.to);
    setDrag(null);
  };
  const go = (/** @type {number} */ di, /** @type {number} */ dj) => () => {
    const c = cursor ?? { k: 0, i: 0, j: 0 };
    setCursor({ k: c.k, i: Math.min(Math.max(c.i + di, 0), l.nx - 1), j: Math.min(Math.max(c.j + dj, 0), l.ny - 1) });
  };
  const keys = onKeys({ ArrowLeft: go(-1, 0), ArrowRight: go(1, 0), ArrowUp: go(0, 1), ArrowDown: go(0, -1), Enter: () => cursor && select(cursor, cursor) });
  const say = cursor && cell(data, cursor), box = cursor && heat.box(l, cursor);
  return html`<div class="measure scroll" ref=${ref}>${width > 0 && html`<${Layers} width=${l.width} height=${l.height} label=${data.sentence} draw=${(/** @type {any} */ c) => heat.draw(c, l, t)} drawKey=${[l, t]}
      over=${over} overKey=${[cursor, drag]} tabIndex="0" onKeyDown=${keys} onFocus=${() => !cursor && setCursor({ k: 0, i: 0, j: 0 })} onBlur=${() => setCursor(null)}
      onPointerMove=${move} onPointerDown=${down} onPointerUp=${up} onPointerLeave=${() => { if (!drag) setCursor(null); }}>
    ${cursor && html`<${Tip} x=${box.x + box.w} y=${box.y} width=${l.width}>${say}<//>`}
  <//><${HeatLegend} data=${data} />`}<span class="hidden" role="status">${say}</span></div>`;
}

/** What a cell says. @param {any} d @param {{k: number, i: number, j: number}} at */
function cell(d, { k, i, j }) {
  const v = d.cells[k].value[j][i], n = d.cells[k].n[j][i];
  const place = `${d.x.key}=${d.x.levels[i].label}, ${d.y.key}=${d.y.levels[j].label}${d.z ? `, ${d.z.key}=${d.z.levels[k].label}` : ''}`;
  return `${place}: ${v === null ? 'no value yet' : `${d.stat === 'failed' ? `${percent(v)} failed` : `${d.stat} ${number(v)}`} (${count(n)} trial${n === 1 ? '' : 's'})`}`;
}

/** @param {{data: any}} props */
function HeatLegend({ data }) {
  const t = useTheme();
  return html`<${Layers} width=${340} height=${18} label="Scale of the colours" draw=${(/** @type {any} */ c) => heat.legend(c, { x: 74, y: 3, w: 160 }, data, t)} drawKey=${[data, t]} />`;
}

/** @param {CanvasRenderingContext2D} c @param {number} x @param {number} y @param {number} w @param {number} h @param {any} t */
function outline(c, x, y, w, h, t) {
  for (const [color, by] of /** @type {[string, number][]} */ ([[t.ground, 4], [t.text, 2]])) {
    c.strokeStyle = color;
    c.lineWidth = by;
    c.strokeRect(x, y, w - 1, h - 1);
  }
}

/** @param {{of: any}} props */
function Matrix({ of }) {
  const moved = useRef(0);
  const answer = useChart(of.id, 'matrix', chartQuery(), { version: of.version, moved });
  const rows = (/** @type {any} */ d) => ({
    columns: ['x', 'y', 'x value', 'y value', 'mean rank', 'interaction', 'n'],
    rows: d.pairs.flatMap((/** @type {any} */ p) => {
      const [ax, ay] = [p.x, p.y].map(k => d.axes.find((/** @type {any} */ a) => a.key === k));
      const low = (/** @type {any} */ a, /** @type {number} */ i, /** @type {number} */ of2) => a.levels[Math.floor(i * a.levels.length / of2)].label;
      return p.rank.flatMap((/** @type {any[]} */ r, /** @type {number} */ j) => r.map((v, i) => [p.x, p.y, low(ax, i, r.length), low(ay, j, p.rank.length), v, p.interaction[j][i], p.n[j][i]]));
    }),
  });
  return html`<${Figure} title="All pairs" name=${`${of.id}-pairs`} answer=${answer} moved=${moved} rows=${rows} empty=${(/** @type {any} */ d) => noValues(d, of)}
    note="Below the diagonal the mean rank of each pair of values; above it what the two do together beyond what each does alone: violet is better, orange worse. Click a pair to see its heat map.">
    ${(/** @type {any} */ d) => html`<${MatrixPlot} data=${d} />`}
  <//>`;
}

/** @param {{data: any}} props */
function MatrixPlot({ data }) {
  const t = useTheme(), [ref, width] = useWidth();
  const l = useMemo(() => heat.matrixLayout(data, Math.min(width, 900)), [data, width]);
  const [on, setOn] = useState(/** @type {any} */ (null));
  const over = (/** @type {CanvasRenderingContext2D} */ c) => { if (on) outline(c, on.x, on.y, on.cell, on.cell, t); };
  const open = (/** @type {any} */ b) => setView(b.flip ? { x: b.pair.y, y: b.pair.x } : { x: b.pair.x, y: b.pair.y });
  const step = (/** @type {number} */ by) => () => setOn(l.boxes[(l.boxes.indexOf(on) + by + l.boxes.length) % l.boxes.length]);
  const keys = onKeys({ ArrowRight: step(1), ArrowDown: step(1), ArrowLeft: step(-1), ArrowUp: step(-1), Enter: () => on && open(on) });
  return html`<div class="measure scroll" ref=${ref}>${width > 0 && html`<${Layers} width=${l.width} height=${l.height} label=${data.sentence} draw=${(/** @type {any} */ c) => heat.drawMatrix(c, l, t)} drawKey=${[l, t]}
    over=${over} overKey=${[on]} tabIndex="0" onKeyDown=${keys} onBlur=${() => setOn(null)} onPointerMove=${(/** @type {any} */ e) => { const p = at(e); setOn(heat.matrixHit(l, p.x, p.y)); }}
    onPointerLeave=${() => setOn(null)} onClick=${() => on && open(on)}>
    ${on && html`<${Tip} x=${on.x + on.cell} y=${on.y + on.cell / 2} width=${l.width}><b>${on.pair.x} × ${on.pair.y}</b> <span class="muted">${on.kind === 'rank' ? 'mean rank' : 'interaction'}</span><//>`}
  <//>`}</div>`;
}

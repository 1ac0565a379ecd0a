// How values are spread, and the best one so far.
import { useMemo, useRef, useState } from 'preact/hooks';
import { html } from '../html.js';
import { count, duration, number } from '../format.js';
import { chartQuery, setView, togglePin, view } from '../view.js';
import { Figure, Layers, Tip, at, brushRect, noValues, onKeys } from './figure.js';
import { ranges, setRanges, valueRanges } from './filter.js';
import * as hist from './histogram.js';
import { pinStyles } from './palette.js';
import { short } from './scale.js';
import { unfiltered, useChart, useTheme, useThrottle, useWidth, values } from './use.js';

/** How values are spread. @param {{of: any}} props */
export function Spread({ of }) {
  const moved = useRef(0);
  const answer = useChart(of.id, 'histogram', chartQuery(), { version: of.version, moved });
  const behind = useChart(of.id, view.where.length ? 'histogram' : '', unfiltered());
  const rows = (/** @type {any} */ d) => ({ columns: ['start', 'end', 'trials'], rows: d.counts.map((/** @type {number} */ n, /** @type {number} */ i) => [d.edges[i], d.edges[i + 1], n]) });
  return html`<${Figure} title=${`Distribution of ${answer.data?.value ?? 'values'}`} name=${`${of.id}-distribution`} answer=${answer} moved=${moved} rows=${rows}
    empty=${(/** @type {any} */ d) => noValues(d, of) ?? (d.edges.length < 2 && html`<p class="empty">${d.n > 0 ? 'All values are equal.' : 'No trial that matches has a value.'}</p>`)}
    note=${answer.data && html`<${Statistics} d=${answer.data} />`}>
    ${(/** @type {any} */ d) => html`<${SpreadPlot} of=${of} data=${d} all=${view.where.length && behind.data?.edges.length > 1 ? behind.data : d} />`}
  <//>`;
}

/** @param {{d: any}} props */
function Statistics({ d }) {
  return html`<span>mean ${number(d.mean)} · sd ${number(d.sd)} · median ${number(d.quantiles[5])}${d.missing > 0 && ` · ${count(d.missing)} ended without a value`}${
    d.below + d.above > 0 && ` · ${count(d.below + d.above)} outside of the chart`}</span>`;
}

/** @param {{of: any, data: any, all: any}} props */
function SpreadPlot({ of, data, all }) {
  const t = useTheme(), [ref, width] = useWidth(), height = 170;
  const l = useMemo(() => hist.layout(data, all, { width, height }), [data, all, width]);
  const [drag, setDrag] = useState(/** @type {any} */ (null));
  const [under, setUnder] = useState(-1);
  const name = `m[${of.metric}]`, n = l.edges.length - 1;
  const set = (/** @type {[number, number][]} */ list) => setView({ where: setRanges(view.where, name, valueRanges(l.edges, list)) });
  const apply = useThrottle(set, 120);
  const ours = ranges(view.where, name);
  const over = (/** @type {CanvasRenderingContext2D} */ c) => {
    const boxes = drag ? [[Math.min(drag.from, drag.to), Math.max(drag.from, drag.to) + 1].map(i => l.left + i / n * (l.right - l.left))]
      : ours.map(([lo, hi]) => [l.x(Math.max(lo, l.edges[0])), l.x(Math.min(hi, l.edges[n]))]);
    for (const [a, b] of boxes) brushRect(c, { x: a, y: l.top - 4, w: Math.max(2, b - a), h: l.bottom - l.top + 4 }, t);
    if (under >= 0 && !drag) {
      c.strokeStyle = t.muted;
      c.strokeRect(l.left + under / n * (l.right - l.left) - 0.5, l.top + 0.5, (l.right - l.left) / n, l.bottom - l.top);
    }
    for (const [index, s] of pinStyles(view.pins, t.dark)) {
      const v = values.value.get(index);
      if (v !== undefined) mark(c, l.x(v), l.top, l.bottom, s.color);
    }
    const v = view.hover === null ? undefined : values.value.get(view.hover);
    if (v !== undefined) mark(c, l.x(v), l.top, l.bottom, t.text);
  };
  const down = (/** @type {PointerEvent} */ e) => {
    const i = hist.hit(l, at(e).x);
    if (i < 0 || e.button !== 0 || !of.metric) return;
    /** @type {HTMLElement} */ (e.currentTarget).setPointerCapture(e.pointerId);
    setDrag({ from: i, to: i, moved: false });
  };
  const move = (/** @type {PointerEvent} */ e) => {
    const x = Math.min(Math.max(at(e).x, l.left), l.right - 1), i = hist.hit(l, x);
    setUnder(i);
    if (!drag || i === drag.to) return;
    setDrag({ ...drag, to: i, moved: true });
    apply([[Math.min(drag.from, i), Math.max(drag.from, i)]]);
  };
  const up = () => {
    if (!drag) return;
    apply.cancel();
    set(drag.moved || ours.length === 0 ? [[Math.min(drag.from, drag.to), Math.max(drag.from, drag.to)]] : []);
    setDrag(null);
  };
  const bins = hist.rebin(data, l.edges);
  return html`<div class="measure" ref=${ref}>${width > 0 && html`<${Layers} width=${width} height=${height} label=${data.sentence} draw=${(/** @type {any} */ c) => hist.draw(c, l, data, all, t)} drawKey=${[l, t]}
    over=${over} overKey=${[drag, under, view.where, view.hover, view.pins, values.value]} onPointerDown=${down} onPointerMove=${move} onPointerUp=${up} onPointerLeave=${() => setUnder(-1)}>
    ${under >= 0 && !drag && html`<${Tip} x=${l.left + (under + 1) / n * (l.right - l.left)} y=${30} width=${width}>${short(l.edges[under], 4)} … ${short(l.edges[under + 1], 4)}: <b>${count(bins[under])}</b><//>`}
  <//>`}</div>`;
}

/** @param {CanvasRenderingContext2D} c @param {number} x @param {number} top @param {number} bottom @param {string} color */
function mark(c, x, top, bottom, color) {
  c.fillStyle = color;
  c.fillRect(x - 1, top, 2, bottom - top);
  c.beginPath();
  c.moveTo(x - 5, top - 6);
  c.lineTo(x + 5, top - 6);
  c.lineTo(x, top + 2);
  c.fill();
}

/** The best so far over time. @param {{of: any}} props */
export function BestSoFar({ of }) {
  const moved = useRef(0);
  const answer = useChart(of.id, 'history', chartQuery(), { version: of.version, moved });
  const rows = (/** @type {any} */ d) => ({ columns: ['seconds', d.value, 'trial'], rows: d.time.map((/** @type {number} */ s, /** @type {number} */ i) => [s, d.best[i], d.trial[i]]) });
  return html`<${Figure} title="Best so far" name=${`${of.id}-best`} answer=${answer} moved=${moved} rows=${rows}
    empty=${(/** @type {any} */ d) => noValues(d, of) ?? (d.time.length === 0 && html`<p class="empty">No trial that matches has a value.</p>`)}
    note="Time since the first trial began.">
    ${(/** @type {any} */ d) => html`<${BestPlot} of=${of} data=${d} />`}
  <//>`;
}

/** @param {{of: any, data: any}} props */
function BestPlot({ of, data }) {
  const t = useTheme(), [ref, width] = useWidth(), height = 170;
  const { state, ended } = of.sweep, until = state === 'running' || !ended ? data.now : (new Date(ended).getTime() * 1000 - data.base) / 1e6;
  const l = useMemo(() => hist.historyLayout({ ...data, now: until }, { width, height }), [data, until, width]);
  const { hover, pins } = view, i = hover === null ? -1 : data.trial.indexOf(hover);
  const over = (/** @type {CanvasRenderingContext2D} */ c) => {
    for (const [index, s] of pinStyles(pins, t.dark)) ring(c, l.points[data.trial.indexOf(index)], s.color);
    ring(c, l.points[i], t.text);
  };
  const pick = (/** @type {any} */ e) => {
    const { x } = at(e), k = hist.historyHit(l, x);
    return k < 0 ? null : data.trial[k];
  };
  const step = (/** @type {number} */ by) => setView({ hover: data.trial[Math.min(Math.max((i < 0 ? data.trial.length - (by < 0 ? 0 : 1) : i) + by, 0), data.trial.length - 1)] });
  const keys = onKeys({ ArrowLeft: () => step(-1), ArrowRight: () => step(1), Enter: () => { if (i >= 0) of.open(hover); }, ' ': () => { if (i >= 0) togglePin(/** @type {number} */ (hover)); } });
  return html`<div class="measure" ref=${ref}>${width > 0 && html`<${Layers} width=${width} height=${height} label=${data.sentence} draw=${(/** @type {any} */ c) => hist.drawHistory(c, l, t)} drawKey=${[l, t]}
    over=${over} overKey=${[hover, pins]} tabIndex="0" onKeyDown=${keys} onPointerMove=${(/** @type {any} */ e) => { const p = pick(e); if (p !== hover) setView({ hover: p }); }}
    onPointerLeave=${() => setView({ hover: null })} onClick=${(/** @type {any} */ e) => { const p = pick(e); if (p !== null) togglePin(p); }}>
    ${i >= 0 && html`<${Tip} x=${l.points[i].x} y=${l.points[i].y} width=${width}><b>#${hover}</b> ${number(data.best[i])} <span class="muted">after ${duration(data.time[i])}</span><//>`}
  <//>`}</div>`;
}

/** @param {CanvasRenderingContext2D} c @param {{x: number, y: number}|undefined} p @param {string} color */
function ring(c, p, color) {
  if (!p) return;
  c.strokeStyle = color;
  c.lineWidth = 2.5;
  c.beginPath();
  c.arc(p.x, p.y, 7, 0, 7);
  c.stroke();
}

// Which region is good: all axes beside each other, how values are spread, the best so far, groups over seeds.
import { useEffect, useMemo, useRef, useState } from 'preact/hooks';
import { html } from '../html.js';
import { count, duration, number } from '../format.js';
import { chartQuery, setView, togglePin, view } from '../view.js';
import { Figure, Layers, Tip, at, onKeys } from './figure.js';
import { brush, brushed, ranges, setRanges } from './filter.js';
import * as par from './parallel.js';
import * as hist from './histogram.js';
import { css, pinStyles, rankColor } from './palette.js';
import { place, short } from './scale.js';
import { unfiltered, useChart, values, useTheme, useThrottle, useWidth } from './use.js';

const MOST_AXES = 10;

/** What stands instead of a chart that has no values to draw; null where there are some. @param {any} data @param {any} of */
export function noValues(data, of) {
  const some = data.total ?? (typeof data.n === 'number' ? data.n : data.lines?.trial.length ?? data.time?.length ?? data.matched);
  if (some > 0) return null;
  if (of.nothing) return of.nothing;
  return html`<p class="empty">${data.matched === 0 ? 'No trial matches the filter.' : 'No trial that matches has a value.'}</p>`;
}

/** Explore. @param {{of: any}} props */
export function Explore({ of }) {
  return html`<${Parallel} of=${of} />
    <div class="pair"><${Spread} of=${of} /><${BestSoFar} of=${of} /></div>
    ${view.over.length > 0 && html`<${Groups} of=${of} />`}`;
}

/** The axes that are drawn, in their order. @param {any} of @returns {string[]} */
function axisKeys(of) {
  const known = of.axes.map((/** @type {any} */ a) => a.key);
  const wanted = (view.more.axes ?? '').split(',').filter(k => known.includes(k));
  return wanted.length ? wanted : of.ranked.length > MOST_AXES ? of.ranked.slice(0, MOST_AXES) : known;
}

/** @param {{of: any}} props */
function Parallel({ of }) {
  const moved = useRef(0), keys = axisKeys(of), chosen = view.more.axes || keys.length < of.axes.length ? keys : [];
  const answer = useChart(of.id, 'parallel', chartQuery({ axis: chosen }), { version: of.version, moved });
  const behind = useChart(of.id, view.where.length ? 'parallel' : '', unfiltered({ axis: chosen }));
  useEffect(() => {
    const lines = answer.data?.lines;
    if (lines) values.value = new Map(lines.trial.map((/** @type {number} */ t, /** @type {number} */ i) => [t, lines.value[i]]));
  }, [answer.data]);
  const rows = (/** @type {any} */ d) => ({
    columns: ['trial', ...d.axes.map((/** @type {any} */ a) => a.key), d.value, 'rank'],
    rows: d.lines.trial.map((/** @type {number} */ t, /** @type {number} */ i) => (
      [t, ...d.axes.map((/** @type {any} */ a, /** @type {number} */ k) => a.levels[d.lines.levels[k][i]].label), d.lines.value[i], d.lines.rank[i]])),
  });
  const note = html`<span class="narrow-no">Drag on an axis to select, with Shift for a second range; drag its name to move it. Click a line to pin it.</span>
    ${answer.data?.sample && ' Bands show how many; lines are the best 100 and a sample of 200.'}`;
  return html`<${Figure} title="Parallel coordinates" name=${`${of.id}-parallel`} answer=${answer} moved=${moved} rows=${rows} note=${note} class="parallel"
    empty=${(/** @type {any} */ d) => noValues(d, of) ?? (d.axes.length === 0 && html`<p class="empty">Every parameter has one value: there is nothing to lay side by side.</p>`)}
    tools=${html`<${Legend} goal=${answer.data?.goal} />${view.more.axes && html`<button type="button" class="quiet" onClick=${() => setView({ axes: '' })}>Axes as in the sweep</button>`}`}>
    ${(/** @type {any} */ d) => html`<${ParallelPlot} of=${of} data=${d} all=${view.where.length && behind.data?.axes.length === d.axes.length ? behind.data : null} keys=${keys} />`}
  <//>`;
}

/** What the colours mean. @param {{goal?: string}} props */
function Legend() {
  const t = useTheme();
  return html`<span class="legend"><span class="muted">worst</span><svg width="84" height="10" aria-hidden="true">
    ${Array.from({ length: 21 }, (_, i) => html`<rect key=${i} x=${i * 4} width="4.5" height="10" fill=${css(rankColor(1 - i / 20, t.dark))} />`)}
  </svg><span class="muted">best, by rank</span></span>`;
}

/** The brushes of an axis of the plot, in levels. @param {any} of @param {par.Layout} l @param {number} a @returns {[number, number][]} */
function brushesOf(of, l, a) {
  const axis = l.axes[a];
  if (!axis.value) return brushed(view.where, axis.axis);
  const n = l.edges.length - 1;
  return ranges(view.where, `m[${of.metric}]`).map(([lo, hi]) => (
    [Math.min(n - 1, Math.round(place(l.edges, lo) * n)), Math.max(0, Math.min(n - 1, Math.round(place(l.edges, hi) * n) - 1))]));
}

/** The filter with these brushes on an axis. @param {any} of @param {par.Layout} l @param {number} a @param {[number, number][]} list */
function withBrushes(of, l, a, list) {
  const axis = l.axes[a];
  if (!axis.value) return brush(view.where, axis.axis, list);
  return setRanges(view.where, `m[${of.metric}]`, valueRanges(l.edges, list));
}

/** Bins as ranges of values; open where they reach the ends. @param {number[]} edges @param {[number, number][]} list @returns {[number, number][]} */
export function valueRanges(edges, list) {
  const n = edges.length - 1;
  return list.filter(([f, t]) => f > 0 || t < n - 1).map(([f, t]) => [f <= 0 ? -Infinity : edges[f], t >= n - 1 ? Infinity : edges[t + 1]]);
}

/** @param {{of: any, data: any, all: any, keys: string[]}} props */
function ParallelPlot({ of, data, all, keys }) {
  const t = useTheme(), [ref, room] = useWidth(), width = room && Math.max(room, 64 * (data.axes.length + 1));
  const height = Math.max(300, Math.min(420, 60 + Math.max(...data.axes.map((/** @type {any} */ a) => a.levels.length)) * 18));
  const l = useMemo(() => par.layout(data, { width, height }, all?.edges.length > 1 ? all.edges : data.edges), [data, all, width, height]);
  const ys = useMemo(() => par.lineYs(l, data), [l]);
  const [drag, setDrag] = useState(/** @type {any} */ (null));
  const [tip, setTip] = useState(/** @type {any} */ (null));
  const apply = useThrottle((/** @type {number} */ a, /** @type {[number, number][]} */ list) => setView({ where: withBrushes(of, l, a, list) }), 120);
  const hover = view.hover, { pins } = view;

  const draw = (/** @type {CanvasRenderingContext2D} */ c) => {
    if (all) par.drawBands(c, l, par.bands(l, all), () => (t.dark ? 'rgba(120,130,142,.20)' : 'rgba(133,139,147,.20)'));
    if (data.sample) {
      par.drawBands(c, l, par.bands(l, data), p => css(rankColor(p.rank, t.dark), 0.62));
      par.drawLines(c, l, data, ys, t.dark);
    } else par.drawLines(c, l, data, ys, t.dark);
    par.drawAxes(c, l, t);
  };
  const over = (/** @type {CanvasRenderingContext2D} */ c) => {
    l.axes.forEach((_, a) => {
      for (const r of drag?.axis === a && drag.list ? drag.list : brushesOf(of, l, a)) brushRect(c, par.brushBox(l, a, r), t);
    });
    const styles = pinStyles(pins, t.dark);
    for (const index of pins) {
      const i = data.lines.trial.indexOf(index), s = styles.get(index);
      if (i >= 0 && s) par.drawLine(c, l, ys[i], s.color, t.ground, s.dash);
    }
    const i = hover === null ? -1 : data.lines.trial.indexOf(hover);
    if (i >= 0) par.drawLine(c, l, ys[i], t.text, t.ground);
    if (drag?.name && drag.moved) {
      c.fillStyle = t.accent;
      c.fillRect(drag.x - 1, l.top - 20, 2, l.h + 20);
    }
  };
  const mayBrush = (/** @type {number} */ a) => a >= 0 && (!l.axes[a].value || (of.metric && l.edges.length > 1));
  const down = (/** @type {PointerEvent} */ e) => {
    if (e.button !== 0) return;
    const { x, y } = at(e), on = par.hitAxis(l, x, y);
    if (on.axis < 0 || (!on.name && !mayBrush(on.axis))) return;
    /** @type {HTMLElement} */ (e.currentTarget).setPointerCapture(e.pointerId);
    if (on.name) {
      if (!l.axes[on.axis].value) setDrag({ name: true, axis: on.axis, x });
      return;
    }
    const level = par.levelAt(l, on.axis, y), had = brushesOf(of, l, on.axis);
    const inside = e.shiftKey ? -1 : had.findIndex(r => level >= r[0] && level <= r[1]);
    setDrag({ axis: on.axis, from: level, to: level, had, inside, add: e.shiftKey, moved: false, list: null });
  };
  const move = (/** @type {PointerEvent} */ e) => {
    const { x, y } = at(e), canvas = /** @type {HTMLElement} */ (e.currentTarget);
    if (drag?.name) return setDrag({ ...drag, x, moved: drag.moved || Math.abs(x - l.axes[drag.axis].x) > 12 });
    if (drag) {
      const to = par.levelAt(l, drag.axis, y);
      if (to === drag.to && !drag.moved && drag.from === to) return undefined;
      const last = l.axes[drag.axis].levels - 1;
      const list = drag.inside >= 0
        ? drag.had.map((/** @type {[number, number]} */ r, /** @type {number} */ i) => (i === drag.inside ? shifted(r, to - drag.from, last) : r))
        : [...(drag.add ? drag.had : []), [Math.min(drag.from, to), Math.max(drag.from, to)]];
      setDrag({ ...drag, to, moved: true, list });
      return apply(drag.axis, list);
    }
    const on = par.hitAxis(l, x, y), i = par.hitLine(l, ys, x, y);
    canvas.style.cursor = on.name ? 'grab' : on.axis >= 0 && mayBrush(on.axis) ? 'ns-resize' : i >= 0 ? 'pointer' : 'default';
    const trial = i < 0 ? null : data.lines.trial[i];
    if (trial !== hover) setView({ hover: trial });
    return setTip(i < 0 ? null : { x, y, i });
  };
  const up = (/** @type {PointerEvent} */ e) => {
    const d = drag, { x } = at(e);
    setDrag(null);
    if (d?.name) {
      if (d.moved) setView({ axes: moveAxis(keys, d.axis, l, x).join(',') });
      return;
    }
    if (d) {
      apply.cancel();
      const list = d.moved ? d.list : d.add ? [...d.had, [d.from, d.to]] : d.had.length ? [] : [[d.from, d.to]];
      setView({ where: withBrushes(of, l, d.axis, list) });
      return;
    }
    if (tip) togglePin(data.lines.trial[tip.i]);
  };
  const leave = () => {
    setTip(null);
    if (!drag) setView({ hover: null });
  };
  const open = () => { if (hover !== null) of.open(hover); };
  return html`<div class="measure scroll" ref=${ref}>${width > 0 && html`<${Layers} width=${width} height=${height} label=${data.sentence} draw=${draw} drawKey=${[l, ys, t, all]} over=${over}
      overKey=${[hover, pins, drag, view.where]} onPointerDown=${down} onPointerMove=${move} onPointerUp=${up} onPointerLeave=${leave} onDblClick=${open}>
    ${l.axes.map((a, k) => mayBrush(k) && html`<${AxisRange} key=${a.key} of=${of} l=${l} a=${k} />`)}
    ${tip && !drag && tip.i < data.lines.trial.length && html`<${Tip} x=${tip.x} y=${tip.y} width=${width}><b>#${data.lines.trial[tip.i]}</b> ${data.value} ${number(data.lines.value[tip.i])}
      <div class="muted">${data.axes.map((/** @type {any} */ a, /** @type {number} */ k) => `${a.key}=${a.levels[data.lines.levels[k][tip.i]].label}`).join('  ')}</div><//>`}
  <//>`}</div>`;
}

/** @param {[number, number]} r @param {number} by @param {number} last @returns {[number, number]} */
function shifted([lo, hi], by, last) {
  const d = Math.max(-lo, Math.min(by, last - hi));
  return [lo + d, hi + d];
}

/** Keys with one moved to where the pointer is. @param {string[]} keys @param {number} axis @param {par.Layout} l @param {number} x */
function moveAxis(keys, axis, l, x) {
  const rest = keys.filter((_, i) => i !== axis);
  const before = l.axes.filter((a, i) => i !== axis && !a.value && a.x < x).length;
  return [...rest.slice(0, before), keys[axis], ...rest.slice(before)];
}

/** @param {CanvasRenderingContext2D} c @param {{x: number, y: number, w: number, h: number}} b @param {any} t */
function brushRect(c, b, t) {
  c.fillStyle = t.dark ? 'rgba(106,168,255,.30)' : 'rgba(11,87,208,.22)';
  c.fillRect(b.x, b.y, b.w, b.h);
  c.strokeStyle = t.accent;
  c.lineWidth = 1.5;
  c.strokeRect(b.x + 0.75, b.y + 0.75, b.w - 1.5, b.h - 1.5);
}

/** The two ends of a brush for keys and screen readers. @param {{of: any, l: par.Layout, a: number}} props */
function AxisRange({ of, l, a }) {
  const axis = l.axes[a], last = axis.levels - 1, had = brushesOf(of, l, a);
  const lo = had.length ? had[0][0] : 0, hi = had.length ? had[had.length - 1][1] : last;
  const set = (/** @type {number} */ f, /** @type {number} */ t) => setView({ where: withBrushes(of, l, a, f <= 0 && t >= last ? [] : [[Math.min(f, t), Math.max(f, t)]]) });
  const say = (/** @type {number} */ i) => (axis.value ? short(l.edges[i], 4) : axis.axis.levels[i].label);
  return html`<div class="axisrange" style=${{ left: `${axis.x - 13}px`, top: `${l.top}px`, height: `${l.h}px` }}>
    <input type="range" min="0" max=${last} value=${lo} aria-label=${`${axis.key} from`} aria-valuetext=${say(lo)} onInput=${(/** @type {any} */ e) => set(Number(e.target.value), hi)} />
    <input type="range" min="0" max=${last} value=${hi} aria-label=${`${axis.key} to`} aria-valuetext=${say(axis.value ? hi + 1 : hi)} onInput=${(/** @type {any} */ e) => set(lo, Number(e.target.value))} />
  </div>`;
}

/** How values are spread. @param {{of: any}} props */
function Spread({ of }) {
  const moved = useRef(0);
  const answer = useChart(of.id, 'histogram', chartQuery(), { version: of.version, moved });
  const behind = useChart(of.id, view.where.length ? 'histogram' : '', unfiltered());
  const rows = (/** @type {any} */ d) => ({ columns: ['from', 'to', 'trials'], rows: d.counts.map((/** @type {number} */ n, /** @type {number} */ i) => [d.edges[i], d.edges[i + 1], n]) });
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
function BestSoFar({ of }) {
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

const SHOWN = 12;

/** Configurations as means over the seeds. @param {{of: any}} props */
function Groups({ of }) {
  const moved = useRef(0), by = view.more.by === 'mean' ? 'mean' : 'bound';
  const answer = useChart(of.id, 'groups', chartQuery({ over: view.over, sort: by === 'mean' ? 'mean' : '' }), { version: of.version, moved });
  const rows = (/** @type {any} */ d) => ({
    columns: ['place', ...d.axes.map((/** @type {any} */ a) => a.key), 'n', 'mean', '± 95 %', 'sd', 'best', 'trial'],
    rows: d.n.map((/** @type {number} */ n, /** @type {number} */ i) => (
      [i + 1, ...d.axes.map((/** @type {any} */ a, /** @type {number} */ k) => a.levels[d.levels[k][i]].label), n, d.mean[i], d.half[i], d.sd[i], d.best[i], d.trial[i]])),
  });
  return html`<${Figure} title=${`Groups: mean over ${view.over.join(', ')}`} name=${`${of.id}-groups`} answer=${answer} moved=${moved} rows=${rows}
    tools=${html`<label class="choice"><span class="muted">ranked by</span><select value=${by} onChange=${(/** @type {any} */ e) => setView({ by: e.target.value === 'mean' ? 'mean' : '' })}>
      <option value="bound" selected=${by === 'bound'}>the worse end of the interval</option><option value="mean" selected=${by === 'mean'}>the mean</option></select></label>`}
    empty=${(/** @type {any} */ d) => noValues(d, of) ?? (d.total === 0 && html`<p class="empty">No group has a value yet.</p>`)}
    note=${answer.data && html`${answer.data.equal > 0 && `${answer.data.equal} of the groups shown can't be told apart from the first. `}${
      answer.data.lucky && `The best single trial, #${answer.data.lucky.trial} (${number(answer.data.lucky.value)}), is a lucky one: its group is in place ${answer.data.lucky.place} with ${number(answer.data.lucky.mean)}.`}`}>
    ${(/** @type {any} */ d) => html`<${GroupTable} of=${of} d=${d} />`}
  <//>`;
}

/** @param {{of: any, d: any}} props */
function GroupTable({ of, d }) {
  const t = useTheme(), n = Math.min(SHOWN, d.n.length);
  const ends = Array.from({ length: n }, (_, i) => [d.mean[i] - (d.half[i] ?? 0), d.mean[i] + (d.half[i] ?? 0), d.best[i]]).flat();
  const lo = Math.min(...ends), hi = Math.max(...ends), x = (/** @type {number} */ v) => 6 + (v - lo) / (hi - lo || 1) * 188;
  return html`<div class="scroll" tabindex="0" role="region" aria-label="Groups"><table class="plain groups">
    <thead><tr><th scope="col">#</th>${d.axes.map((/** @type {any} */ a) => html`<th scope="col" key=${a.key}>${a.key}</th>`)}<th scope="col" class="right">n</th><th scope="col" class="right">mean ± 95 %</th>
      <th scope="col"><span class="hidden">interval, and the best as a ring</span></th><th scope="col" class="right">best</th></tr></thead>
    <tbody>${Array.from({ length: n }, (_, i) => html`<tr key=${i} class=${view.hover === d.trial[i] ? 'opens under' : 'opens'} onClick=${() => togglePin(d.trial[i])}
        onMouseEnter=${() => setView({ hover: d.trial[i] })} onMouseLeave=${() => setView({ hover: null })}>
      <td class="muted">${i + 1}</td>${d.axes.map((/** @type {any} */ a, /** @type {number} */ k) => html`<td key=${a.key}>${a.levels[d.levels[k][i]].label}</td>`)}<td class="right">${d.n[i]}</td>
      <td class="right">${number(d.mean[i])} ± ${d.half[i] === null ? '–' : short(d.half[i], 2)}</td>
      <td><svg width="200" height="18" aria-hidden="true"><line x1=${x(d.mean[i] - (d.half[i] ?? 0))} x2=${x(d.mean[i] + (d.half[i] ?? 0))} y1="9" y2="9" stroke=${t.muted} stroke-width="2" />
        <circle cx=${x(d.mean[i])} cy="9" r="4" fill=${t.accent} /><circle cx=${x(d.best[i])} cy="9" r="3.5" fill="none" stroke=${t.muted} stroke-width="1.5" /></svg></td>
      <td class="right"><button type="button" class="link" onClick=${(/** @type {any} */ e) => { e.stopPropagation(); of.open(d.trial[i]); }}>#${d.trial[i]}</button> ${number(d.best[i])}</td></tr>`)}</tbody>
  </table></div>${d.total > n && html`<p class="note muted">The first ${n} of ${count(d.total)} groups; “Table” shows ${count(d.n.length)}.</p>`}`;
}

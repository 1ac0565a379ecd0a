// Parallel coordinates: the chart with its brushes.
import { useEffect, useMemo, useRef, useState } from 'preact/hooks';
import { html } from '../html.js';
import { number } from '../format.js';
import { chartQuery, setView, togglePin, view } from '../view.js';
import { Figure, Layers, Tip, at, brushRect, noValues } from './figure.js';
import { brush, brushed, ranges, setRanges, valueRanges } from './filter.js';
import * as par from './parallel.js';
import { css, pinStyles, rankColor } from './palette.js';
import { place, short } from './scale.js';
import { unfiltered, useChart, useTheme, useThrottle, useWidth, values } from './use.js';

const MOST_AXES = 10;

/** The axes that are drawn, in their order. @param {any} of @returns {string[]} */
function axisKeys(of) {
  const known = of.axes.map((/** @type {any} */ a) => a.key);
  const wanted = (view.more.axes ?? '').split(',').filter(k => known.includes(k));
  return wanted.length ? wanted : of.ranked.length > MOST_AXES ? of.ranked.slice(0, MOST_AXES) : known;
}

/** @param {{of: any}} props */
export function Parallel({ of }) {
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

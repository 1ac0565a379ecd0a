// Where the time goes: what ran when and where, and how many ended.
import { useMemo, useRef, useState } from 'preact/hooks';
import { html } from '../html.js';
import { duration, time } from '../format.js';
import { chartQuery, setView, togglePin, view } from '../view.js';
import { Figure, Layers, Tip, at, onKeys } from './figure.js';
import { setRanges } from './filter.js';
import { pinStyles } from './palette.js';
import * as timeline from './timeline.js';
import { useChart, useTheme, useWidth } from './use.js';

/** @param {{of: any}} props */
export function TimelineTab({ of }) {
  const moved = useRef(0);
  const answer = useChart(of.id, 'timeline', chartQuery(), { version: of.version, moved });
  const rows = (/** @type {any} */ d) => (d.bars
    ? { columns: ['trial', 'node', 'lane', 'start', 'end', 'state'], rows: d.bars.trial.map((/** @type {number} */ t, /** @type {number} */ i) => [t, d.bars.node[i], d.bars.lane[i], d.bars.start[i], d.bars.end[i], d.bars.state[i]]) }
    : { columns: ['node', 'start', 'end', 'busy'], rows: (d.lanes ?? []).flatMap((/** @type {any} */ l) => l.busy.map((/** @type {any} */ b, /** @type {number} */ i) => [l.node, d.edges[i], d.edges[i + 1], b])) });
  return html`<${Figure} title="Timeline" name=${`${of.id}-timeline`} answer=${answer} moved=${moved} rows=${rows}
    empty=${(/** @type {any} */ d) => !d.bars?.trial.length && !d.lanes?.length && html`<p class="empty">${d.matched === 0 && view.where.length ? 'Nothing matches the filter.' : 'No trial has begun yet.'}</p>`}
    note="Drag to zoom into a span of time, double-click to see all of it. A trial is drawn while it runs. Times since the first trial began.">
    ${(/** @type {any} */ d) => html`<${TimePlot} of=${of} data=${d} />`}
  <//>`;
}

/** @param {{of: any, data: any}} props */
function TimePlot({ of, data }) {
  const t = useTheme(), [ref, width] = useWidth();
  const [zoom, setZoom] = useState(/** @type {[number, number]|null} */ (null));
  const [drag, setDrag] = useState(/** @type {any} */ (null));
  const [tip, setTip] = useState(/** @type {any} */ (null));
  const l = useMemo(() => timeline.layout(data, width, zoom), [data, width, zoom]);
  const { hover, pins } = view;
  const over = (/** @type {CanvasRenderingContext2D} */ c) => {
    const styles = pinStyles(pins, t.dark);
    for (const r of l.rows) {
      const color = r.trial === hover ? t.text : styles.get(r.trial)?.color;
      if (!color) continue;
      c.strokeStyle = color;
      c.lineWidth = 2;
      c.strokeRect(r.x - 1, r.y - 1, Math.max(3, r.x1 - r.x + 2), r.h + 2);
    }
    if (drag?.moved) {
      c.fillStyle = t.dark ? 'rgba(106,168,255,.25)' : 'rgba(11,87,208,.15)';
      c.fillRect(Math.min(drag.from, drag.to), 18, Math.abs(drag.to - drag.from), l.rate.bottom - 18);
    }
  };
  const move = (/** @type {PointerEvent} */ e) => {
    const p = at(e);
    if (drag) return setDrag({ ...drag, to: Math.min(Math.max(p.x, l.left), l.right), moved: drag.moved || Math.abs(p.x - drag.from) > 5 });
    const r = timeline.hit(l, p.x, p.y);
    const trial = r?.trial ?? null;
    if (trial !== hover) setView({ hover: trial });
    return setTip(r && { ...p, r });
  };
  const down = (/** @type {PointerEvent} */ e) => {
    if (e.button !== 0) return;
    /** @type {HTMLElement} */ (e.currentTarget).setPointerCapture(e.pointerId);
    const { x } = at(e);
    setDrag({ from: Math.min(Math.max(x, l.left), l.right), to: x, moved: false });
  };
  const up = () => {
    if (drag?.moved) setZoom(/** @type {[number, number]} */ ([drag.from, drag.to].map(l.x.value).sort((a, b) => a - b)));
    else if (tip) togglePin(tip.r.trial);
    setDrag(null);
  };
  const shift = (/** @type {number} */ by, /** @type {number} */ factor) => () => {
    const w = (l.to - l.from) * factor, mid = (l.from + l.to) / 2 + (l.to - l.from) * by;
    setZoom([mid - w / 2, mid + w / 2]);
  };
  const keys = onKeys({ ArrowLeft: shift(-0.2, 1), ArrowRight: shift(0.2, 1), '+': shift(0, 0.5), '=': shift(0, 0.5), '-': shift(0, 2), '0': () => setZoom(null) });
  const select = () => setView({ where: setRanges(view.where, 't', [[Number(l.from.toPrecision(8)), Number(l.to.toPrecision(8))]]) });
  const i = tip?.r.i, there = tip && data.bars?.trial[i] === tip.r.trial; // a newer answer may lack it
  return html`${zoom && html`<div class="zoomed"><button type="button" onClick=${() => setZoom(null)}>Whole time</button><button type="button" onClick=${select}>Only trials that began then</button></div>`}
    <div class="measure" ref=${ref}>${width > 0 && html`<${Layers} width=${width} height=${l.height} label=${data.sentence} draw=${(/** @type {any} */ c) => timeline.draw(c, l, t)} drawKey=${[l, t]} over=${over}
      overKey=${[hover, pins, drag]} tabIndex="0" onKeyDown=${keys} onPointerMove=${move} onPointerDown=${down} onPointerUp=${up} onDblClick=${() => setZoom(null)}
      onPointerLeave=${() => { setTip(null); setView({ hover: null }); }}>
    ${there && !drag && html`<${Tip} x=${tip.x} y=${tip.y} width=${width}><b>#${tip.r.trial}</b> ${tip.r.state} on ${data.bars.node[i]} <div class="muted">${time(data.base / 1000 + data.bars.start[i] * 1000)} for ${duration(data.bars.end[i] - data.bars.start[i])}</div><//>`}
  <//>`}</div>
  <p class="legend">${['running', 'succeeded', 'failed', 'cancelled'].map(s => html`<span key=${s} class=${`state ${s}`}>■ ${s}</span> `)}</p>`;
}

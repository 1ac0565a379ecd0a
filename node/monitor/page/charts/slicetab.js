// Slices: what changes when one parameter of a trial does. Real trials, nothing between them.
import { useMemo, useRef, useState } from 'preact/hooks';
import { html } from '../html.js';
import { number } from '../format.js';
import { chartQuery, setView, togglePin, view } from '../view.js';
import { Figure, Layers, Tip, at, noValues, onKeys } from './figure.js';
import * as slices from './slices.js';
import { useChart, useTheme, useWidth } from './use.js';

/** @param {{of: any}} props */
export function SliceTab({ of }) {
  const moved = useRef(0), asked = Number(view.more.trial ?? NaN);
  const trial = Number.isInteger(asked) && asked >= 0 ? asked : view.pins[0] ?? (of.best >= 0 ? of.best : 0);
  const answer = useChart(of.id, 'slices', chartQuery({ trial }), { version: of.version, moved });
  const rows = (/** @type {any} */ d) => ({
    columns: ['axis', 'at', 'trial', 'state', d.value],
    rows: d.axes.flatMap((/** @type {any} */ a) => a.label.map((/** @type {string} */ v, /** @type {number} */ i) => [a.key, v, a.index[i] < 0 ? null : a.index[i], a.index[i] < 0 ? 'not in the sweep' : a.state[i], a.value[i]])),
  });
  const go = (/** @type {number} */ index) => setView({ trial: index });
  const [text, setText] = useState('');
  const jump = (/** @type {any} */ e) => {
    e.preventDefault();
    const n = Number(text.replace(/^#/, ''));
    if (text && Number.isInteger(n) && n >= 0) go(n);
    setText('');
  };
  const tools = html`<form class="choice" onSubmit=${jump}><label class="choice"><span class="muted">through trial</span>
      <input type="text" inputmode="numeric" size="8" placeholder=${`#${trial}`} value=${text} onInput=${(/** @type {any} */ e) => setText(e.target.value)} /></label></form>
    ${of.best >= 0 && of.best !== trial && html`<button type="button" class="quiet" onClick=${() => go(of.best)}>the best</button>`}
    <button type="button" class="quiet" aria-pressed=${view.pins.includes(trial)} onClick=${() => togglePin(trial)}>pin</button>
    <button type="button" class="quiet" onClick=${() => of.open(trial)}>open</button>`;
  return html`<${Figure} title=${`Slices through #${trial}`} name=${`${of.id}-slices-${trial}`} answer=${answer} moved=${moved} rows=${rows} tools=${tools}
    empty=${(/** @type {any} */ d) => (d.axes.length === 0 ? noValues(d, of) ?? html`<p class="empty">Every parameter has one value: the sweep has no neighbours to walk to.</p>` : null)}
    note="← → walk to a neighbour, Tab goes to the next axis, Enter opens the trial. A cross is a failed trial, a dotted ring one without a value yet, a stroke a point that is not in the sweep.">
    ${(/** @type {any} */ d) => html`<div class="slices">${d.axes.map((/** @type {any} */ a) => html`<${SlicePlot} key=${a.key} axis=${a} data=${d} go=${go} of=${of} />`)}</div>`}
  <//>`;
}

/** @param {{axis: any, data: any, go: (index: number) => void, of: any}} props */
function SlicePlot({ axis, data, go, of }) {
  const t = useTheme(), [ref, width] = useWidth(), height = 150;
  const ends = useMemo(() => slices.extent(data), [data]);
  const l = useMemo(() => slices.layout(axis, ends, { width, height }), [axis, ends, width]);
  const [under, setUnder] = useState(-1);
  const p = l.points[under];
  const step = (/** @type {1|-1} */ by) => () => {
    const to = slices.walk(axis, axis.at, by);
    if (to !== axis.at) go(axis.index[to]);
  };
  const keys = onKeys({ ArrowLeft: step(-1), ArrowRight: step(1), Enter: () => of.open(data.trial) });
  const hovered = view.hover === null ? -1 : axis.index.indexOf(view.hover);
  const label = `${axis.key}: ${axis.label.map((/** @type {string} */ v, /** @type {number} */ i) => `${v} ${axis.value[i] === null ? axis.state[i] || 'none' : number(axis.value[i])}${i === axis.at ? ' (here)' : ''}`).join(', ')}`;
  return html`<div class="slice measure" ref=${ref}>${width > 0 && html`<${Layers} width=${width} height=${height} label=${label} draw=${(/** @type {any} */ c) => slices.draw(c, l, t, under >= 0 ? under : hovered)} drawKey=${[l, t, under, hovered]}
    over=${() => {}} tabIndex="0" onKeyDown=${keys} onPointerMove=${(/** @type {any} */ e) => {
      const i = slices.hit(l, at(e).x);
      setUnder(i);
      const trial = i >= 0 && axis.index[i] >= 0 ? axis.index[i] : null;
      if (trial !== view.hover) setView({ hover: trial });
    }} onPointerLeave=${() => { setUnder(-1); setView({ hover: null }); }} onClick=${() => p && p.trial >= 0 && go(p.trial)}>
    ${p && html`<${Tip} x=${p.x} y=${30} width=${width}><b>${axis.label[under]}</b> ${p.trial < 0 ? 'is not in the sweep' : html`#${p.trial} ${axis.value[under] === null ? p.state : number(axis.value[under])}`}<//>`}
  <//>`}</div>`;
}

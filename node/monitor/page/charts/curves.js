// Curves of the chosen trials over their steps, with the field of all that match behind them.
import { useEffect, useMemo, useRef, useState } from 'preact/hooks';
import { html } from '../html.js';
import { count, number } from '../format.js';
import { chartQuery, setView, togglePin, view } from '../view.js';
import { Figure } from './figure.js';
import { aligned, nearest } from './curvedata.js';
import { css, pinStyles, rankColor } from './palette.js';
import { short } from './scale.js';
import { useChart, useTheme, useWidth } from './use.js';

/** @param {{of: any}} props */
export function CurveTab({ of }) {
  const moved = useRef(0), [log, setLog] = useState(false);
  const answer = useChart(of.id, 'curves', chartQuery({ trials: view.pins.join(',') }), { version: of.version, moved });
  const rows = (/** @type {any} */ d) => ({
    columns: ['trial', 'state', 'step', d.value],
    rows: d.curves.flatMap((/** @type {any} */ c) => c.steps.map((/** @type {number} */ s, /** @type {number} */ i) => [c.trial, c.state, s, c.values[i]])),
  });
  const tools = html`<button type="button" class="quiet" aria-pressed=${log} onClick=${() => setLog(!log)}>log</button>
    ${view.pins.length > 0 && html`<button type="button" class="quiet" onClick=${() => setView({ pins: [] })}>the best instead of the pinned</button>`}`;
  const d = answer.data;
  return html`<${Figure} title=${`Curves of ${d?.value ?? 'values'}`} name=${`${of.id}-curves`} answer=${answer} moved=${moved} rows=${rows} tools=${tools}
    empty=${(/** @type {any} */ v) => v.curves.every((/** @type {any} */ c) => c.steps.length === 0) && v.sampled === 0 && html`<div class="empty"><p>A curve needs a metric that a program reports more than once:${' '}
      lines with a <code>step</code>, <code>epoch</code> or <code>iteration</code> in the file that <code>$MLF_METRICS</code> names.</p>${of.sweep.metrics.length > 1 && html`<p>Other metrics: ${of.sweep.metrics.join(', ')}.</p>`}</div>`}
    note=${d && html`${view.pins.length ? 'Pinned trials' : 'The best trials'} over the middle 80 % of ${count(d.sampled)} that match, with the median as a dotted line. Click to pin.`}>
    ${(/** @type {any} */ v) => html`<${CurvePlot} of=${of} data=${v} log=${log} />`}
  <//>`;
}

/** @param {{of: any, data: any, log: boolean}} props */
function CurvePlot({ of, data, log }) {
  const t = useTheme(), [ref, width] = useWidth(), box = useRef(/** @type {HTMLDivElement|null} */ (null));
  const table = useMemo(() => aligned(data), [data]);
  const [under, setUnder] = useState(/** @type {any} */ (null));
  const pins = pinStyles(view.pins, t.dark);
  const styles = data.curves.map((/** @type {any} */ c, /** @type {number} */ i) => pins.get(c.trial) ?? { color: css(rankColor(i / Math.max(10, data.curves.length), t.dark)), dash: [] });
  useEffect(() => {
    if (!box.current || width < 50) return undefined;
    const positive = table.slice(1).every(s => s.every(v => v === null || v > 0));
    const plot = new globalThis.uPlot(options(data, styles, t, width, log && positive, (/** @type {any} */ u) => {
      const { left, top, idx } = u.cursor;
      const near = idx === null || idx === undefined || left < 0 ? null : nearest(table, idx, u.posToVal(top, 'y'), data.curves.length);
      const trial = near === null ? null : data.curves[near].trial;
      if (trial !== view.hover) setView({ hover: trial });
      setUnder(near === null ? null : { trial, step: table[0][idx], value: table[4 + near][idx] });
    }), table, box.current);
    const click = () => { if (view.hover !== null) togglePin(view.hover); };
    const open = () => { if (view.hover !== null) of.open(view.hover); };
    plot.over.addEventListener('click', click);
    plot.over.addEventListener('dblclick', open);
    return () => plot.destroy();
  }, [table, width, t, log, view.pins.join()]);
  return html`<div class="measure curves" ref=${ref}><div ref=${box} role="img" aria-label=${data.sentence}></div></div>
    <p class="curvelegend">${data.curves.map((/** @type {any} */ c, /** @type {number} */ i) => html`<button type="button" class="link" key=${c.trial} aria-pressed=${view.pins.includes(c.trial)} title="Pin it"
      onMouseEnter=${() => setView({ hover: c.trial })} onMouseLeave=${() => setView({ hover: null })} onClick=${() => togglePin(c.trial)}>
      <svg width="18" height="8" aria-hidden="true"><line x1="0" x2="18" y1="4" y2="4" stroke=${styles[i].color} stroke-width="2.5" stroke-dasharray=${styles[i].dash.join(' ')} /></svg>
      <span class=${view.hover === c.trial ? 'under' : ''}>#${count(c.trial)}${c.steps.length === 0 ? ' (none)' : ''}</span></button>`)}
    <span class="muted">${under && `#${under.trial} at ${number(under.step)}: ${number(under.value)}`}</span></p>`;
}

/**
 * @param {any} data @param {{color: string, dash: number[]}[]} styles @param {import('./palette.js').Theme} t @param {number} width @param {boolean} log
 * @param {(u: any) => void} onCursor
 */
function options(data, styles, t, width, log, onCursor) {
  const font = '12px system-ui, sans-serif', fade = t.dark ? 'rgba(154,165,179,.18)' : 'rgba(87,96,108,.15)';
  const axis = { stroke: t.muted, font, grid: { stroke: t.border, width: 1 }, ticks: { stroke: t.border, width: 1, size: 4 } };
  const names = (/** @type {any} */ _, /** @type {number[]} */ all) => all.map(v => (v === null ? '' : short(v, 4)));
  return {
    width, height: 360, legend: { show: false }, cursor: { drag: { x: true, y: false }, points: { size: 7 }, focus: { prox: 24 } }, focus: { alpha: 0.35 },
    scales: { x: { time: false }, y: { distr: log ? 3 : 1 } },
    axes: [{ ...axis, label: 'step', labelFont: font, labelSize: 16, size: 30, values: names }, { ...axis, size: 62, values: names }],
    series: [{}, { stroke: 'transparent', points: { show: false } }, { stroke: 'transparent', points: { show: false } },
      { stroke: t.muted, width: 1.5, dash: [2, 4], points: { show: false } },
      ...data.curves.map((/** @type {any} */ c, /** @type {number} */ i) => ({ label: `#${c.trial}`, stroke: styles[i].color, dash: styles[i].dash, width: 1.8, spanGaps: true, points: { show: c.steps.length < 3 } }))],
    bands: [{ series: [2, 1], fill: fade }],
    hooks: { setCursor: [onCursor] },
  };
}

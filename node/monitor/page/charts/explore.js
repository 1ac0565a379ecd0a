// Which region is good: all axes beside each other, how values are spread, the best so far, and groups over seeds.
import { useRef } from 'preact/hooks';
import { html } from '../html.js';
import { count, number } from '../format.js';
import { chartQuery, setView, togglePin, view } from '../view.js';
import { Figure, noValues } from './figure.js';
import { Parallel } from './parallelplot.js';
import { BestSoFar, Spread } from './spread.js';
import { short } from './scale.js';
import { useChart, useTheme } from './use.js';

/** Explore. @param {{of: any}} props */
export function Explore({ of }) {
  if (of.nothing) return html`<div class="panel">${of.nothing}</div>`;
  return html`<${Parallel} of=${of} />
    <div class="pair"><${Spread} of=${of} /><${BestSoFar} of=${of} /></div>
    ${view.over.length > 0 && html`<${Groups} of=${of} />`}`;
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
  return html`<${Figure} title=${`Groups: mean over ${view.over.join(', ')}`} name=${`${of.id}-groups`} answer=${answer} moved=${moved} rows=${rows} drawn=${false}
    tools=${html`<label class="choice"><span class="muted">ranked by</span><select value=${by} onChange=${(/** @type {any} */ e) => setView({ by: e.target.value === 'mean' ? 'mean' : '' })}>
      <option value="bound" selected=${by === 'bound'}>interval's worse end</option><option value="mean" selected=${by === 'mean'}>the mean</option></select></label>`}
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

// What has not run yet, and where to look next.
import { useRef } from 'preact/hooks';
import { html } from '../html.js';
import { count, percent, plural, roughly } from '../format.js';
import { askExtend } from '../actions.js';
import { mayAct } from '../store.js';
import { Command } from '../ui.js';
import { chartQuery } from '../view.js';
import { Figure } from './figure.js';
import { useChart } from './use.js';

/** @param {{of: any}} props */
export function CoverageTab({ of }) {
  return html`<${Suggestions} of=${of} /><${Coverage} of=${of} />`;
}

/** @param {{of: any}} props */
function Suggestions({ of }) {
  const moved = useRef(0);
  const answer = useChart(of.id, 'suggestions', chartQuery(), { version: of.version, moved });
  const rows = (/** @type {any} */ d) => ({ columns: ['kind', 'axis', 'values', 'trials', 'work in s', 'text'], rows: d.list.map((/** @type {any} */ s) => [s.kind, s.key, s.values.join(' ') || s.label, s.trials, s.work, s.text]) });
  return html`<${Figure} title="Where to look next" name=${`${of.id}-suggestions`} answer=${answer} moved=${moved} rows=${rows} drawn=${false}
    sentence=${answer.data?.list.length ? '' : answer.data?.sentence} empty=${(/** @type {any} */ d) => d.list.length === 0 && html`<span></span>`}>
    ${(/** @type {any} */ d) => html`<ul class="suggestions">${d.list.map((/** @type {any} */ s) => html`<${Suggestion} key=${s.kind + s.key} s=${s} of=${of} />`)}</ul>`}
  <//>`;
}

/** @param {{s: any, of: any}} props */
function Suggestion({ s, of }) {
  return html`<li><div><span class="tag">${s.kind}</span> ${s.text}${s.work !== null && html` <span class="muted">${roughly(s.work)} of work.</span>`}</div>
    ${s.args.length > 0 && html`<${Command} text=${`mlfnode extend ${of.id} ${s.args.join(' ')}`} />`}
    ${s.args.length > 0 && mayAct.value && html`<div><button type="button" onClick=${() => askExtend(of.sweep, { key: s.key, values: s.values.join(',') })}>Extend by ${plural(s.trials, 'trial')} …</button></div>`}
  </li>`;
}

/** @param {{of: any}} props */
function Coverage({ of }) {
  const moved = useRef(0);
  const answer = useChart(of.id, 'coverage', chartQuery(), { version: of.version, moved });
  const rows = (/** @type {any} */ d) => ({
    columns: ['axis', 'value', 'ended', 'running', 'trials of the sweep'],
    rows: d.axes.flatMap((/** @type {any} */ a) => a.levels.map((/** @type {any} */ l, /** @type {number} */ i) => [a.key, l.label, a.done[i], a.running[i], l.points])),
  });
  return html`<${Figure} title="Coverage" name=${`${of.id}-coverage`} answer=${answer} moved=${moved} rows=${rows} drawn=${false}>
    ${(/** @type {any} */ d) => html`<div class="strip" role="img" aria-label=${d.sentence}>${d.strip.map((/** @type {number|null} */ v, /** @type {number} */ i) => html`<i key=${i} style=${{ opacity: v === null ? 0.04 : 0.08 + 0.92 * v }}></i>`)}</div>
      <p class="muted">All trials by number, from the first to the last: the darker, the more have ended.</p>
      <div class="covered">${d.axes.map((/** @type {any} */ a) => html`<div key=${a.key}><h3>${a.key}</h3><ul>${a.levels.map((/** @type {any} */ l, /** @type {number} */ i) => html`<li key=${i}
        title=${`${count(a.done[i])} of ${count(l.points)} have ended, ${count(a.running[i])} run`}><span class="label">${l.label}</span>
        <svg width="120" height="8" aria-hidden="true"><rect width="120" height="8" class="rest" /><rect width=${120 * ratio(a.done[i], l.points)} height="8" class="done" />
          <rect x=${120 * ratio(a.done[i], l.points)} width=${120 * ratio(a.running[i], l.points)} height="8" class="runs" /></svg><span class="muted">${percent(ratio(a.done[i], l.points))}</span></li>`)}</ul></div>`)}</div>`}
  <//>`;
}

const ratio = (/** @type {number} */ n, /** @type {number} */ of) => (of > 0 ? Math.min(1, n / of) : 0);

// The head of a sweep's page: how far it is, and what can be done with it.
import { html } from './html.js';
import { SweepActions } from './actions.js';
import { count, rate } from './format.js';
import { Counts, Ending, Progress, State, Time } from './ui.js';

/** @param {{sweep: any, state?: any}} props of the API: a sweep, and its live state, which is newer */
export function SweepHead({ sweep, state }) {
  const s = { ...sweep, ...(state ?? {}) };
  return html`<div class="head">
      <h1>${s.sweep}</h1>
      <${State} state=${s.state} />
      <span class="muted">${[s.project, s.task, s.name].filter(Boolean).join(' · ')}</span>
      <${SweepActions} sweep=${s} />
    </div>
    <${Progress} of=${s} />
    <div class="facts">
      <${Counts} of=${s} /><span>of <b>${count(s.count)}</b></span>
      ${s.state === 'running' && html`<span>${rate(s.rate)}</span>`}
      <${Ending} of=${s} />
      <span>submitted <${Time} at=${s.submitted} /></span>
      ${s.ended && html`<span>ended <${Time} at=${s.ended} /></span>`}
      ${s.image && html`<span class="wrap">image <code>${s.image}</code></span>`}
    </div>
    ${s.problem && html`<div class="notice warn"><p><strong>Nothing runs:</strong> ${s.problem}</p></div>`}
    ${s.waits && html`<div class="notice warn"><p class="wrap">${s.waits}</p></div>`}
    ${(s.gpu_sharing ?? []).map((/** @type {any} */ g) => html`<p class="muted" key=${g.model + g.value}>${g.text}</p>`)}`;
}

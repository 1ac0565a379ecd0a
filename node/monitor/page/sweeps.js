// The list of sweeps, the newest first.
import { useEffect, useState } from 'preact/hooks';
import { get } from './api.js';
import { html } from './html.js';
import { count, duration, rate } from './format.js';
import { Link, navigate, sweepPlace } from './router.js';
import { active, overview } from './store.js';
import { setView, view } from './view.js';
import { Answer, Command, Counts, Empty, Ending, Panel, Progress, State, Time, useData, useSlow, useTitle } from './ui.js';

const STATES = ['running', 'paused', 'finished', 'cancelled'];

/** A sweep of the API with what the stream of events says, which is newer. @param {any} s */
export const withLive = s => ({ ...s, ...(active.value.get(s.sweep) ?? {}) });

export function SweepsPage() {
  useTitle('Sweeps');
  const { state = '', find = '' } = { state: stateFilter(), ...view.more };
  const version = useSlow(`${overview.value?.sweeps}/${overview.value?.active}`, 2000);
  const [more, setMore] = useState(/** @type {{key: string, sweeps: any[], next: string}} */ ({ key: '', sweeps: [], next: '' }));
  const key = `sweeps ${state}`;
  const page = useData(key, signal => get('/sweeps', { signal, query: { state } }), version);
  useEffect(() => setMore({ key, sweeps: [], next: '' }), [key]);
  const next = more.next || (more.sweeps.length ? '' : page.data?.next);
  const load = async () => {
    const got = await get('/sweeps', { query: { state, after: next } });
    setMore(m => ({ key, sweeps: [...m.sweeps, ...got.sweeps], next: got.next ?? '' }));
  };
  return html`<div class="stack">
    <div class="head"><h1>Sweeps</h1>
      <div class="actions">
        <input type="search" data-search aria-label="Find sweeps" placeholder="find …  /" value=${find} onInput=${(/** @type {any} */ e) => setView({ find: e.target.value })} />
        <select aria-label="State" value=${state} onChange=${(/** @type {any} */ e) => setView({ where: e.target.value ? [`state=${e.target.value}`] : [] })}>
          <option value="">any state</option>${STATES.map(s => html`<option key=${s}>${s}</option>`)}</select>
      </div></div>
    <${Answer} of=${page}>${(/** @type {any} */ data) => html`<${List} all=${[...data.sweeps, ...more.sweeps]} total=${data.total} find=${find} state=${state} />
      ${next && html`<div><button type="button" onClick=${load}>More sweeps</button></div>`}`}<//>
  </div>`;
}

const stateFilter = () => view.where.find(w => w.startsWith('state='))?.slice(6) ?? '';

/** @param {{all: any[], total: number, find: string, state: string}} props */
function List({ all, total, find, state }) {
  const low = find.toLowerCase();
  const shown = all.filter(s => !low || `${s.sweep} ${s.project} ${s.task} ${s.name ?? ''}`.toLowerCase().includes(low));
  if (!all.length && !state) return html`<${Panel} title="Sweeps"><${NoSweep} /><//>`;
  if (!shown.length) return html`<${Panel} title="Sweeps"><${Empty} title="No sweep matches"><p><button type="button" onClick=${() => setView({ where: [], find: '' })}>Show all</button></p><//><//>`;
  return html`<${Panel} title="Sweeps" aside=${html`<span>${count(shown.length)}${shown.length < total ? ` of ${count(total)}` : ''}</span>`}><div class="scroll"><table class="plain">
    <thead><tr><th scope="col">sweep</th><th scope="col">state</th><th scope="col" class="progresscol">progress</th><th scope="col" class="right">trials</th><th scope="col" class="opt">by state</th><th scope="col" class="opt">time left</th><th scope="col" class="opt">submitted</th><th scope="col" class="opt right">CPU time</th></tr></thead>
    <tbody>${shown.map(s => html`<${Row} key=${s.sweep} sweep=${withLive(s)} />`)}</tbody></table></div><//>`;
}

/** @param {{sweep: any}} props */
function Row({ sweep: s }) {
  const open = (/** @type {any} */ e) => { if (!e.target.closest('a')) navigate(sweepPlace(s.sweep)); };
  return html`<tr class="opens" onClick=${open}><td><${Link} href=${sweepPlace(s.sweep)}>${s.sweep}<//> <span class="muted">${[s.task, s.name].filter(Boolean).join(' · ')}</span></td>
    <td><${State} state=${s.state} /></td><td class="progresscol"><${Progress} of=${s} /></td><td class="right">${count(s.count)}</td>
    <td class="opt"><${Counts} of=${s} /></td><td class="opt">${s.state === 'running' ? html`<${Ending} of=${s} /> <span class="muted">${s.rate ? rate(s.rate) : ''}</span>` : html`<span class="muted">${s.ended ? html`ended <${Time} at=${s.ended} />` : '–'}</span>`}</td>
    <td class="opt"><${Time} at=${s.submitted} /></td><td class="opt right">${duration(s.cpu_seconds)}</td></tr>`;
}

/** What there is before the first sweep. */
export function NoSweep() {
  return html`<${Empty} title="There are no sweeps yet"><p>Start one from a project folder, or run an example that comes with mlfnode:</p>
    <${Command} text="mlfnode sweep PROJECT" /><${Command} text="mlfnode sweep chainer" /><//>`;
}

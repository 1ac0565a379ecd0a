// The overview: what the cluster does right now.
import { get, sweepPath } from './api.js';
import { plain } from './ansi.js';
import { html } from './html.js';
import { count, rate } from './format.js';
import { GPUCells, Load, NodeState } from './nodes.js';
import { Link, nodePlace, sweepPlace, trialPlace } from './router.js';
import { active, nodes, overview } from './store.js';
import { NoSweep, withLive } from './sweeps.js';
import { Answer, Counts, Empty, Ending, Later, Panel, Progress, State, Time, useData, useSlow, useTitle } from './ui.js';

const SHOWN = 10; // sweeps
const GROUPS = 6; // of failures

export function OverviewPage() {
  const o = overview.value;
  useTitle(o?.running ? `${count(o.running)} running` : '');
  const version = useSlow(`${o?.sweeps}/${o?.active}/${o?.failed}`, 2000);
  const list = useData('overview', signal => get('/sweeps', { signal, query: { limit: 50 } }), version);
  const all = (list.data?.sweeps ?? []).map(withLive);
  const going = all.filter((/** @type {any} */ s) => s.state === 'running' || s.state === 'paused' || s.running > 0);
  const shown = [...going, ...all.filter((/** @type {any} */ s) => !going.includes(s))].slice(0, SHOWN);
  return html`<div class="stack">
    <h1 class="hidden">Overview</h1>
    <${Figures} />
    <div class="wide">
      <div class="stack">
        <${Panel} title="Sweeps" aside=${html`<${Link} href="/sweeps">all ${count(list.data?.total)}<//>`}>
          <${Answer} of=${list}>${() => (shown.length ? html`<ul class="rows">${shown.map(s => html`<${SweepRow} key=${s.sweep} sweep=${s} />`)}</ul>` : html`<${NoSweep} />`)}<//>
        <//>
        <${Nodes} />
        <${Later} load=${() => import('./past.js')} name="RatePanel" />
      </div>
      <${Failures} of=${all.filter((/** @type {any} */ s) => s.failed > 0).slice(0, 3)} />
    </div>
  </div>`;
}

function Figures() {
  const o = overview.value, members = nodes.value;
  const rates = [...active.value.values()].reduce((sum, s) => sum + (s.state === 'running' ? s.rate ?? 0 : 0), 0);
  const alive = members?.filter((/** @type {any} */ m) => m.state === 'alive') ?? [];
  const gpus = alive.flatMap((/** @type {any} */ m) => m.devices ?? []).filter((/** @type {any} */ d) => !d.mig);
  const busy = gpus.filter((/** @type {any} */ d) => d.utilization_percent >= 5).length;
  const figure = (/** @type {string} */ name, /** @type {any} */ value, /** @type {any} */ more, kind = '') => html`<div><dt>${name}</dt><dd class=${kind && `state ${kind}`}>${value}${more && html` <small>${more}</small>`}</dd></div>`;
  return html`<dl class="figures">
    ${figure('Running', count(o?.running), o?.running ? rate(rates) : '')}
    ${figure('Waiting', count(o?.pending), o ? `${count(o.active)} active ${o.active === 1 ? 'sweep' : 'sweeps'}` : '')}
    ${figure('Succeeded', count(o?.succeeded), '')}
    ${figure('Failed', count(o?.failed), '', o?.failed ? 'failed' : '')}
    ${members && figure('Nodes', `${alive.length}/${members.length}`, 'alive', alive.length < members.length ? 'failed' : '')}
    ${gpus.length > 0 && figure('GPUs', `${busy}/${gpus.length}`, 'busy')}
  </dl>`;
}

/** @param {{sweep: any}} props */
function SweepRow({ sweep: s }) {
  return html`<li class="sweeprow">
    <div class="line1"><${Link} class="name" href=${sweepPlace(s.sweep)}>${s.sweep}<//><span class="muted">${[s.task, s.name].filter(Boolean).join(' · ')}</span><${State} state=${s.state} />
      <span class="muted end">${s.state === 'running' ? html`${s.rate > 0 && rate(s.rate)} <${Ending} of=${s} />` : s.ended && html`ended <${Time} at=${s.ended} />`}</span></div>
    <${Progress} of=${s} />
    <div class="line1"><${Counts} of=${s} /><${Best} sweep=${s} /></div>
    ${(s.problem || s.waits) && html`<p class="state paused wrap">${s.problem || s.waits}</p>`}
  </li>`;
}

/** The best result so far, in the words of the master. @param {{sweep: any}} props */
function Best({ sweep: s }) {
  const version = useSlow(s.succeeded, 5000);
  const has = s.succeeded > 0 && (s.objective || s.metrics?.length > 0);
  const best = useData(has ? `best ${s.sweep}` : '', signal => get(sweepPath(s.sweep, '/charts/history'), { signal }), version);
  if (!best.data) return null;
  return html`<span class="muted end wrap">${best.data.sentence}</span>`;
}

/** Failed trials of the newest sweeps that have some, by class. @param {{of: any[]}} props */
function Failures({ of }) {
  const key = of.map(s => s.sweep).join(' ');
  const version = useSlow(of.map(s => s.failed).join('/'), 3000);
  const groups = useData(key && `failures ${key}`, async signal => {
    const all = await Promise.all(of.map(async s => (await get(sweepPath(s.sweep, '/failures'), { signal })).groups.map((/** @type {any} */ g) => ({ ...g, sweep: s.sweep }))));
    return all.flat().sort((a, b) => b.count - a.count).slice(0, GROUPS);
  }, version);
  return html`<${Panel} title="Failures" aside="newest sweeps">${key ? html`<${Answer} of=${groups}>${(/** @type {any[]} */ all) => html`<ul class="rows">${all.map(g => html`<li key=${g.sweep + g.class} class="sweeprow">
      <div class="line1"><b class="state failed">${count(g.count)}</b><${Link} href=${`${sweepPlace(g.sweep, 'failures')}?class=${encodeURIComponent(g.class)}`}>${g.cause || g.class}<//><span class="muted end">${g.sweep}</span></div>
      <p class="muted clip" title=${plain(g.reason)}>${plain(lastLine(g.reason))}</p>
      <p class="muted">for example <${Link} href=${trialPlace(g.sweep, g.trial.split('/').pop())}>${g.trial}<//> · <span>${g.owner}</span></p></li>`)}</ul>`}<//>`
    : html`<${Empty} title="Nothing has failed" />`}<//>`;
}

/** What a program printed last says more than how it ended. @param {string} reason */
const lastLine = reason => reason.split('\n').filter(l => l.trim() && !l.startsWith('hint: ')).pop() ?? '';

function Nodes() {
  const members = nodes.value;
  if (!members) return null;
  return html`<${Panel} title="Nodes" aside=${html`<${Link} href="/nodes">all ${count(members.length)}<//>`}><div class="scroll"><table class="plain">
    <thead><tr><th scope="col">node</th><th scope="col">state</th><th scope="col" class="right">running</th><th scope="col" class="opt">load</th><th scope="col">GPUs</th></tr></thead>
    <tbody>${members.slice(0, 40).map((/** @type {any} */ m) => html`<tr key=${m.node}><td><${Link} href=${nodePlace(m.node)}>${m.node}<//></td><td><${NodeState} node=${m} /></td>
      <td class="right">${count(m.running)}</td><td class="opt"><${Load} node=${m} /></td><td><${GPUCells} node=${m} /></td></tr>`)}</tbody></table></div><//>`;
}

// The nodes of the cluster, and one of them.
import { get } from './api.js';
import { askDrain, askUndrain } from './actions.js';
import { html } from './html.js';
import { bytes, count } from './format.js';
import { Link, nodePlace, parts, trialPlace } from './router.js';
import { mayAct, nodes, now } from './store.js';
import { setView, view } from './view.js';
import { Answer, Command, Empty, Failure, Later, Loading, Panel, State, Time, useData, useTitle } from './ui.js';

/** The state of a node: as gossip sees it, and whether it takes trials. @param {{node: any}} props */
export function NodeState({ node: m }) {
  const text = m.state === 'alive' ? (m.quarantined ? 'quarantined' : m.drained ? 'drained' : 'alive') : m.state;
  const sign = { alive: '●', drained: '◌', quarantined: '⊗', suspect: '?', dead: '✕', left: '–' }[text] ?? '·';
  return html`<span class=${`state ${text === 'quarantined' ? 'failed' : text}`} title=${m.reason || undefined}><span aria-hidden="true">${sign}</span> ${text}</span>`;
}

/** @param {{share: number, label: string}} props */
export function Meter({ share, label }) {
  const s = Math.max(0, Math.min(1, share || 0));
  return html`<span class=${`meter ${s > 0.9 ? 'full' : ''}`} role="img" aria-label=${label} title=${label}><i style=${{ width: `${100 * s}%` }}></i></span>`;
}

/** @param {{node: any}} props */
export function Load({ node: m }) {
  return html`<${Meter} share=${m.cpus ? m.load / m.cpus : 0} label=${`load ${m.load.toFixed(1)} of ${m.cpus} CPUs`} /> <span>${m.load.toFixed(1)}</span>`;
}

/** The GPUs of a node at a glance. @param {{node: any}} props */
export function GPUCells({ node: m }) {
  const devices = (m.devices ?? []).filter((/** @type {any} */ d) => !d.mig);
  if (!devices.length) return html`<span class="muted">${m.problem || (m.gpus ? `${m.gpus}` : '–')}</span>`;
  return html`<span class="gpus">${devices.map((/** @type {any} */ d) => html`<${Meter} key=${d.uuid} share=${d.utilization_percent / 100}
    label=${`GPU ${d.index}: ${d.utilization_percent < 0 ? 'use unknown' : `${d.utilization_percent} % busy`}, ${bytes(d.memory_used_bytes)} of ${bytes(d.memory_bytes)}${d.state && d.state !== 'ready' ? `, ${d.state}` : ''}`} />`)}</span>`;
}

/** What is said where there is no cluster. */
function Alone() {
  return html`<${Empty} title="This node is not in a cluster"><p>It runs sweeps by itself. To use more machines, start a master and join others to it:</p>
    <${Command} text="mlfnode master" /><${Command} text="mlfnode join --seed HOST" /><//>`;
}

/** The members by the stream of events; until there are any, or where there is no cluster, by a question. */
function useMembers() {
  const asked = useData('members', signal => get('/members', { signal }));
  return { members: nodes.value ?? asked.data, error: asked.error, reload: asked.reload };
}

export function NodesPage() {
  useTitle('Nodes');
  const { members, error, reload } = useMembers();
  const find = (view.more.find ?? '').toLowerCase();
  const shown = (members ?? []).filter((/** @type {any} */ m) => !find || `${m.node} ${m.state} ${m.roles?.join(' ')} ${m.reason}`.toLowerCase().includes(find));
  return html`<div class="stack"><div class="head"><h1>Nodes</h1><div class="actions">
      <input type="search" data-search aria-label="Find nodes" placeholder="find …  /" value=${view.more.find ?? ''} onInput=${(/** @type {any} */ e) => setView({ find: e.target.value })} /></div></div>
    <${Panel} title="Nodes" aside=${members && html`<span>${count(shown.length)}</span>`}>
    ${!members && (error ? (error.status === 409 ? html`<${Alone} />` : html`<${Failure} error=${error} retry=${reload} />`) : html`<${Loading} />`)}
    ${members && (shown.length ? html`<div class="scroll"><table class="plain">
      <thead><tr><th scope="col">node</th><th scope="col">state</th><th scope="col" class="opt">roles</th><th scope="col" class="right">running</th><th scope="col">load</th><th scope="col" class="opt right">CPUs</th><th scope="col" class="opt right">memory</th><th scope="col">GPUs</th><th scope="col" class="opt">version</th><th scope="col" class="opt">why</th></tr></thead>
      <tbody>${shown.map((/** @type {any} */ m) => html`<tr key=${m.node}><td><${Link} href=${nodePlace(m.node)}>${m.node}<//>${m.local && html` <span class="tag">answers</span>`}</td><td><${NodeState} node=${m} /></td>
        <td class="opt">${m.roles?.join(', ')}</td><td class="right">${count(m.running)}</td><td><${Load} node=${m} /></td><td class="opt right">${m.cpus}</td><td class="opt right">${bytes(m.memory_bytes)}</td>
        <td><${GPUCells} node=${m} /></td><td class="opt">${m.version}</td><td class="opt muted">${m.reason || m.problem || ''}</td></tr>`)}</tbody></table></div>` : html`<${Empty} title="No node matches"><p>Its name, state, role or reason has what you typed. Take it away to see all ${count(members.length)}.</p><//>`)}<//>
    ${shown.length > 0 && html`<${Later} load=${() => import('./past.js')} name="StripsPanel" members=${shown} />`}</div>`;
}

/** @param {{name: string}} props */
export function NodePage({ name }) {
  useTitle(name);
  const { members, error, reload } = useMembers();
  const m = members?.find((/** @type {any} */ n) => n.node === name);
  if (!members) return error ? (error.status === 409 ? html`<${Alone} />` : html`<${Failure} error=${error} retry=${reload} />`) : html`<${Loading} />`;
  if (!m) return html`<${Empty} title=${`There is no node ${name}`}><p>It may have left the cluster. <${Link} href="/nodes">All nodes<//></p><//>`;
  return html`<div class="stack">
    <div class="head"><h1>${m.node}</h1><${NodeState} node=${m} /><span class="muted">since <${Time} at=${m.since} /></span>
      ${mayAct.value && html`<div class="actions">${m.drained || m.quarantined ? html`<button type="button" class="primary" onClick=${() => askUndrain(m)}>Undrain</button>`
        : html`<button type="button" onClick=${() => askDrain(m)}>Drain…</button>`}</div>`}</div>
    ${m.reason && html`<div class="notice warn"><p class="wrap"><strong>${m.quarantined ? 'Quarantined' : 'Drained'}:</strong> ${m.reason}</p></div>`}
    ${m.problem && html`<div class="notice failed"><p class="wrap"><strong>Its GPUs can't be used:</strong> ${m.problem}</p></div>`}
    <dl class="figures"><div><dt>Running</dt><dd>${count(m.running)}</dd></div><div><dt>Load</dt><dd>${m.load.toFixed(1)} <small>of ${m.cpus} CPUs</small></dd></div>
      <div><dt>Memory</dt><dd>${bytes(m.memory_bytes)}</dd></div><div><dt>GPUs</dt><dd>${m.gpus}</dd></div></dl>
    <div class="facts"><span>roles <b>${m.roles?.join(', ')}</b></span><span>version <b>${m.version}</b></span><span>address <b>${m.address}</b></span>
      ${m.driver && html`<span>driver <b>${m.driver}</b></span>`}${m.cuda && html`<span>CUDA <b>${m.cuda}</b></span>`}</div>
    <${Devices} node=${m} />
    <${Later} load=${() => import('./past.js')} name="StripsPanel" members=${[m]} />
    <${Running} node=${name} moved=${m.running} />
  </div>`;
}

/** @param {{node: any}} props */
function Devices({ node: m }) {
  const all = m.devices ?? [];
  if (!all.length) return null;
  return html`<${Panel} title="GPUs"><div class="scroll"><table class="plain">
    <thead><tr><th scope="col">#</th><th scope="col">name</th><th scope="col">state</th><th scope="col">busy</th><th scope="col">memory</th><th scope="col" class="right opt">temperature</th><th scope="col" class="right opt">power</th><th scope="col" class="right opt">processes</th><th scope="col">trials</th><th scope="col" class="opt">UUID</th></tr></thead>
    <tbody>${all.map((/** @type {any} */ d) => html`<tr key=${d.uuid}><td>${d.index}${d.instance >= 0 ? `.${d.instance}` : ''}</td><td>${d.name}${d.profile && ` ${d.profile}`}</td><td title=${d.why || undefined}>${d.state || 'ready'}</td>
      <td><${Meter} share=${d.utilization_percent / 100} label="busy" /> ${d.utilization_percent < 0 ? '–' : `${d.utilization_percent} %`}</td>
      <td><${Meter} share=${d.memory_bytes > 0 ? d.memory_used_bytes / d.memory_bytes : 0} label="memory in use" /> ${bytes(d.memory_used_bytes)} of ${bytes(d.memory_bytes)}</td>
      <td class="right opt">${d.temperature_celsius < 0 ? '–' : `${d.temperature_celsius} °C`}</td><td class="right opt">${d.power_watts < 0 ? '–' : `${d.power_watts} W`}</td><td class="right opt">${d.processes < 0 ? '–' : d.processes}</td>
      <td>${(d.trials ?? []).map((/** @type {string} */ t) => html`<${TrialLink} key=${t} id=${t} /> `)}</td><td class="opt mono">${d.uuid}</td></tr>`)}</tbody></table></div><//>`;
}

/** A link to a trial by its id. @param {{id: string}} props */
export function TrialLink({ id }) {
  const [sweep, index] = parts(id);
  return index === undefined ? html`<span>${id}</span>` : html`<${Link} href=${trialPlace(sweep, index)}>${id}<//>`;
}

const AGAIN = 5000; // ms after which what runs on a node is asked for again

/** Trials that run on a node, of the sweeps of which something runs. @param {{node: string, moved: number}} props */
function Running({ node, moved }) {
  const found = useData(`running ${node}`, async signal => {
    const { sweeps } = await get('/sweeps', { signal, query: { limit: 50 } });
    const fields = ['index', 'state', 'node', 'attempt', 'started'];
    const tables = await Promise.all(sweeps.filter((/** @type {any} */ s) => s.running > 0).slice(0, 10).map((/** @type {any} */ s) => get(`/sweeps/${encodeURIComponent(s.sweep)}/trials`, { signal, query: { state: 'running', limit: 500, field: fields } })));
    return tables.flatMap(t => Array.from({ length: t.count }, (_, i) => ({ sweep: t.sweep, ...Object.fromEntries(t.columns.map((/** @type {any} */ c) => [c.name, c.values[i]])) }))).filter(r => r.node === node);
  }, moved ? `${moved} ${Math.floor(now.value / AGAIN)}` : 'none');
  return html`<${Panel} title="Running here"><${Answer} of=${found}>${(/** @type {any[]} */ rows) => (rows.length ? html`<div class="scroll"><table class="plain">
    <thead><tr><th scope="col">trial</th><th scope="col">state</th><th scope="col" class="right">attempt</th><th scope="col">started</th></tr></thead>
    <tbody>${rows.slice(0, 200).map(r => html`<tr key=${`${r.sweep}/${r.index}`}><td><${TrialLink} id=${`${r.sweep}/${r.index}`} /></td><td><${State} state=${r.state} /></td><td class="right">${r.attempt}</td><td><${Time} at=${r.started} /></td></tr>`)}</tbody></table></div>`
    : html`<${Empty} title="No long-running trials here"><p>Short trials are reported only when they end.</p><//>`)}<//><//>`;
}

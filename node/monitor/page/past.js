// What was in the last hour: how many trials ended, and how busy machines and GPUs were.
import { html } from './html.js';
import { get } from './api.js';
import { count, roughly } from './format.js';
import { Link, nodePlace } from './router.js';
import { now } from './store.js';
import { Answer, Empty, Panel, useData } from './ui.js';
import { NONE, area } from './charts/strip.js';

const AGAIN = 15_000; // ms after which it is asked for again
const NODES = 40; // that are drawn
const FEW = 8; // nodes of which all samples are asked for

const again = () => Math.floor(now.value / AGAIN);

/** How many trials ended in each minute. */
export function RatePanel() {
  const rate = useData('rate', signal => get('/rate', { signal }), again());
  return html`<${Panel} title="Trials per minute"><${Answer} of=${rate}>${(/** @type {any} */ r) => html`<${Rate} of=${r} />`}<//><//>`;
}

/** @param {{of: any}} props */
function Rate({ of: r }) {
  const states = ['succeeded', 'failed', 'cancelled'];
  const most = Math.max(...r.succeeded.map((/** @type {number} */ n, /** @type {number} */ i) => n + r.failed[i] + r.cancelled[i]));
  if (most === 0) return html`<${Empty} title=${r.sentence}><p>Each bar is a minute in which trials ended. The page of a sweep says what runs, or what it waits for.</p><//>`;
  const n = r.succeeded.length, high = (/** @type {number} */ v) => 100 * v / most;
  return html`<div class="pad"><p>${r.sentence}</p>
    <svg class="past rate" viewBox=${`0 0 ${n} 100`} preserveAspectRatio="none" role="img" aria-label=${r.sentence}>${r.succeeded.map((/** @type {any} */ _, /** @type {number} */ i) => {
    let y = 100;
    return states.map(s => r[s][i] > 0 && html`<rect key=${s} class=${`state ${s}`} x=${i + 0.1} width="0.8" y=${y -= high(r[s][i])} height=${high(r[s][i])} fill="currentColor"><title>${`${n - 1 - i} min ago: ${count(r[s][i])} ${s}`}</title></rect>`);
  })}</svg>
    <p class="pastends muted"><span>an hour ago</span><span>at most ${count(most)} a minute</span><span>now</span></p></div>`;
}

/** How busy nodes and their GPUs were. @param {{members: any[]}} props */
export function StripsPanel({ members }) {
  const shown = members.slice(0, NODES), few = shown.length <= FEW;
  const samples = useData(`strips ${few ? shown.map(m => m.node) : ''}`, signal => (few ? Promise.all(shown.map(m => ofNode(m.node, signal))) : get('/nodes', { signal })), again());
  const span = samples.data?.reduce((/** @type {number} */ most, /** @type {any} */ s) => Math.max(most, atob(s.cpu).length * s.step_seconds), 0);
  return html`<${Panel} title="Load of nodes and GPUs" aside=${span > 0 && html`<span>the last ${roughly(span)}${members.length > NODES && `, of the first ${NODES} nodes; find others above`}</span>`}><${Answer} of=${samples}>${(/** @type {any[]} */ all) => {
    const of = new Map(all.map(s => [s.node, s])), known = shown.filter(m => of.get(m.node)?.cpu);
    return known.length ? html`<ul class="rows">${known.map(m => html`<${NodeStrips} key=${m.node} node=${m} of=${of.get(m.node)} />`)}</ul>`
      : html`<${Empty} title="No load data yet"><p>Nodes report every 15 seconds once they have joined the cluster. Nodes of an older version do not.</p><//>`;
  }}<//><//>`;
}

/** The samples of a whole hour. @param {string} node @param {AbortSignal} signal */
async function ofNode(node, signal) {
  try {
    return await get(`/nodes/${encodeURIComponent(node)}/samples`, { signal });
  } catch (err) {
    if (/** @type {any} */ (err).status !== 404) throw err;
    return { node, cpu: '', step_seconds: 0 }; // it has reported nothing
  }
}

/** @param {{node: any, of: any}} props */
function NodeStrips({ node: m, of }) {
  const index = new Map((m.devices ?? []).map((/** @type {any} */ d) => [d.uuid, d.index]));
  const gpus = of.gpus.filter((/** @type {any} */ g) => index.has(g.uuid)).sort((/** @type {any} */ a, /** @type {any} */ b) => index.get(a.uuid) - index.get(b.uuid));
  return html`<li class="sweeprow"><${Link} class="name" href=${nodePlace(m.node)}>${m.node}<//><div class="strips">
    <${Strip} node=${m.node} name="CPU" data=${of.cpu} /><${Strip} node=${m.node} name="memory" data=${of.memory} />
    ${gpus.map((/** @type {any} */ g) => html`<${Strip} key=${g.uuid} node=${m.node} name=${`GPU ${index.get(g.uuid)}`} data=${g.utilization} /><${Strip} key=${`${g.uuid} memory`} node=${m.node} name=${`GPU ${index.get(g.uuid)} memory`} data=${g.memory} />`)}
  </div></li>`;
}

/** The samples of one figure. @param {{node: string, name: string, data: string}} props base64, a byte for each, in per cent */
function Strip({ node, name, data }) {
  const values = Array.from(atob(data), c => c.charCodeAt(0)), n = values.length;
  const there = values.filter(v => v !== NONE), last = there.length ? `${there[there.length - 1]} %` : '–';
  const mean = there.length ? Math.round(there.reduce((s, v) => s + v, 0) / there.length) : 0;
  const label = `${name} of ${node}: ${there.length ? `${last} now, ${mean} % on average before` : 'nothing known'}`;
  return html`<div class="stripcell"><span class="muted">${name}</span><b>${last}</b><svg class="past" viewBox=${`0 0 ${n} 100`} preserveAspectRatio="none" role="img" aria-label=${label}><title>${label}</title><path d=${area(values)} /></svg></div>`;
}

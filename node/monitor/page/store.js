// What the page knows of the cluster: signals that the stream of events keeps up to date. Reading one in a component subscribes to it,
// and its topic is asked for as long as somebody does.
import { computed, signal } from '@preact/signals';
import { get, hooks, post, sessionKey } from './api.js';
import { Stream } from './events.js';

/** Who is logged in: `{role}`, null for nobody, undefined while that is not known. @type {import('@preact/signals').Signal<any>} */
export const session = signal(undefined);

/** The time in ms, each second. */
export const now = signal(Date.now());
setInterval(() => {
  if (!document.hidden) now.value = Date.now();
}, 1000);

/** How the stream is: see events.js. */
export const line = signal({ condition: 'connecting', at: 0, since: Date.now(), retry: 0, why: '' });

/** Whether the user has stopped what moves. */
export const frozen = signal(false);

/** @type {Map<string, import('@preact/signals').Signal<any>>} */
const known = new Map();

/** A signal of the states under a key, whose topic is wanted while something subscribes to it. @param {string} key @param {string} topic @param {any} first */
function live(key, topic, first) {
  let s = known.get(key);
  if (!s) {
    /** @type {(() => void)|undefined} */
    let release;
    s = signal(first, {
      watched() { release = stream.want(topic); },
      unwatched() { release?.(); },
    });
    known.set(key, s);
  }
  return s;
}

/** The live state of a sweep: counts, rate and eta_seconds; null until it is known. @param {string} id */
export const sweep = id => live(`sweep:${id}`, `sweep:${id}`, null);

/** The live state of a trial, as the API lists it; null until it is known. @param {string} id as in chainer-3/17 */
export const trial = id => live(`trial:${id}`, `trial:${id}`, null);

/** What the cluster does; null until it is known. */
export const overview = live('overview', 'overview', null);

/** The states of the sweeps of which something runs or will, or that have just ended, by id. */
export const active = live('active', 'overview', new Map());

const members = live('members', 'nodes', null);
const states = live('nodes', 'nodes', new Map());

/** The nodes of the cluster by name; null until they are known. */
export const nodes = computed(() => {
  const names = members.value, all = states.value;
  return names && names.filter((/** @type {string} */ n) => all.has(n)).map((/** @type {string} */ n) => all.get(n));
});

/** @param {import('./events.js').State} s */
function take({ name, key, data }) {
  if (name === 'members') members.value = data;
  else if (name === 'node') states.value = new Map(states.peek()).set(data.node, data);
  else if (name === 'overview') overview.value = data;
  else if (name === 'trial' || name === 'sweep') live(key, key, null).value = data;
  if (name === 'sweep') {
    const all = new Map(active.peek());
    all.set(data.sweep, data);
    active.value = all;
  }
}

/** Nothing reports what ended while the stream was away. @param {import('./events.js').Line} l */
function takeLine(l) {
  const back = l.condition === 'live' && line.peek().condition !== 'live';
  if (back) active.value = new Map();
  line.value = l;
  if (back) lookAtVersion().catch(() => {}); // the next time it is back, it is asked again
}

/** Says that the node is of another version than this page, or that there is a newer page; '' while that is not so. */
export const renewed = signal('');

let version = '';

async function lookAtVersion() {
  const [node, page] = await Promise.all([get('/node'), fetch(location.pathname).then(r => (r.ok ? r.text() : null))]);
  if (version && node.version !== version) renewed.value = `The node now runs mlfnode ${node.version}; this page came with ${version}.`;
  else if (page !== null) renewed.value = page.includes(new URL('.', import.meta.url).pathname) ? '' : 'This page is of another version of mlfnode monitor.';
  version ||= node.version;
}

/** Whether a reload would lose something: a dialog, or what somebody has typed. */
const writing = () => document.querySelector('dialog[open]') !== null
  || [...document.querySelectorAll('input, textarea')].some(f => /** @type {HTMLInputElement} */ (f).value !== /** @type {HTMLInputElement} */ (f).defaultValue);

document.addEventListener('visibilitychange', () => { // nobody is disturbed then
  if (document.hidden && renewed.peek() && line.peek().condition === 'live' && !writing()) location.reload();
});

const stream = new Stream(take, takeLine, () => session.peek() || whoami());

/** Asks who is logged in, and begins to listen. */
export async function start() {
  hooks.unauthorized = () => { session.value = null; };
  const secret = new URLSearchParams(location.hash.slice(1)).get('k');
  if (location.hash) history.replaceState(null, '', location.pathname + location.search); // the secret stays in no history
  if (secret) {
    const problem = await login(secret);
    if (problem) loginProblem.value = problem;
  }
  await whoami();
}

/** What went wrong with the link that the page was opened with. @type {import('@preact/signals').Signal<any>} */
export const loginProblem = signal(null);

async function whoami() {
  try {
    session.value = await get('/session');
    stream.retryNow();
  } catch (err) {
    if (/** @type {any} */ (err).status !== 401) setTimeout(whoami, 2000); // a refusal has ended the session already
  }
}

/** Begins a session with the secret of a link. Gives the problem where it can't. @param {string} secret */
export async function login(secret) {
  try {
    const { key, ...who } = await post('/session', { link: secret });
    localStorage.setItem('mlf-session', key);
    session.value = who;
    loginProblem.value = null;
    stream.retryAll();
    return null;
  } catch (err) {
    return err;
  }
}

/** Ends the session. */
export async function logout() {
  const key = sessionKey();
  await post('/session', undefined, { method: 'DELETE' });
  if (key !== sessionKey()) return; // another session has begun since
  localStorage.removeItem('mlf-session');
  session.value = null;
}

/** Whether the session may act. */
export const mayAct = computed(() => session.value && session.value.role !== 'viewer');

/** Tries to reach the node immediately. */
export const retryNow = () => stream.retryAll();

/** Stops or goes on with what moves. @param {boolean} stopped */
export function freeze(stopped) {
  frozen.value = stopped;
  stream.pause(stopped);
}

/** What was done last, for people who listen to the page. */
export const spoken = signal('');

/** Says something. @param {string} text */
export function announce(text) { spoken.value = text; }

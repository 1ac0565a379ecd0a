// What can be done with sweeps, trials and nodes. Each action asks first, and says how much it is about.
import { useEffect, useState } from 'preact/hooks';
import { get, post, sweepPath } from './api.js';
import { Confirm, showDialog } from './dialog.js';
import { html } from './html.js';
import { plural } from './format.js';
import { mayAct } from './store.js';
import { Failure } from './ui.js';

/** @param {any} content @param {string} label */
const ask = (content, label) => showDialog(content, { label });

/** @param {any} s */
export function askPause(s) {
  ask(html`<${Pause} sweep=${s} />`, `Pause ${s.sweep}`);
}

/** @param {{sweep: any}} props */
function Pause({ sweep: s }) {
  const [kill, setKill] = useState(false);
  const run = async () => {
    await post(sweepPath(s.sweep, `/actions/${kill ? 'kill' : 'pause'}`));
    return `${s.sweep} is paused`;
  };
  return html`<${Confirm} title=${`Pause ${s.sweep}?`} verb="Pause" run=${run} text=${`${plural(s.pending, 'pending trial')} will wait. `
    + (s.running ? `${plural(s.running, 'running trial')} ${s.running === 1 ? 'goes' : 'go'} on to the end.` : 'Nothing is running.')}>
    ${s.running > 0 && html`<label><input type="checkbox" checked=${kill} onChange=${(/** @type {any} */ e) => setKill(e.target.checked)} /> also stop running trials; they run again later</label>`}
  <//>`;
}

/** @param {any} s */
export function askResume(s) {
  const run = async () => {
    await post(sweepPath(s.sweep, '/actions/resume'));
    return `${s.sweep} goes on`;
  };
  ask(html`<${Confirm} title=${`Resume ${s.sweep}?`} verb="Resume" run=${run} text=${`${plural(s.pending, 'pending trial')} may start.`} />`, `Resume ${s.sweep}`);
}

/** @param {any} s */
export function askCancel(s) {
  ask(html`<${Cancel} sweep=${s} />`, `Cancel ${s.sweep}`);
}

/** @param {{sweep: any}} props */
function Cancel({ sweep: s }) {
  const [save, setSave] = useState(false);
  const run = async () => {
    await post(sweepPath(s.sweep, '/actions/cancel'), undefined, { query: save ? { save: 'true' } : undefined });
    return `${s.sweep} is cancelled`;
  };
  return html`<${Confirm} title=${`Cancel ${s.sweep}?`} verb=${`Cancel ${plural(s.pending + s.running, 'trial')}`} danger run=${run}
    text=${`${plural(s.running, 'running trial')} will be stopped, and ${plural(s.pending, 'pending trial')} will not run. Results stay.`}>
    ${s.running > 0 && html`<label><input type="checkbox" checked=${save} onChange=${(/** @type {any} */ e) => setSave(e.target.checked)} /> let running trials save their state first</label>`}
  <//>`;
}

/** Asks to run failed trials again, all or those of one class. @param {any} s @param {string} [failureClass] */
export function askRetry(s, failureClass = '') {
  ask(html`<${Retry} sweep=${s} first=${failureClass} />`, `Retry failed trials of ${s.sweep}`);
}

/** @param {{sweep: any, first: string}} props */
function Retry({ sweep: s, first }) {
  const [groups, setGroups] = useState(/** @type {any[]} */ ([]));
  const [chosen, setChosen] = useState(first);
  useEffect(() => {
    const control = new AbortController();
    get(sweepPath(s.sweep, '/failures'), { signal: control.signal }).then(f => setGroups(f.groups), () => {});
    return () => control.abort();
  }, [s.sweep]);
  const group = groups.find(g => g.class === chosen);
  const n = chosen ? group?.count ?? 0 : s.failed;
  const run = async () => {
    const done = await post(sweepPath(s.sweep, '/actions/retry'), { index: -1, failed_only: true, class: chosen });
    return `${plural(done.changed, 'trial')} of ${s.sweep} will run again`;
  };
  return html`<${Confirm} title=${`Retry failed trials of ${s.sweep}?`} verb=${`Retry ${plural(n, 'trial')}`} ready=${n > 0} run=${run}
    text="They get a new attempt; the old ones stay in the history.">
    ${groups.length > 1 || chosen ? html`<label>which <select value=${chosen} onChange=${(/** @type {any} */ e) => setChosen(e.target.value)}>
      <option value="">all ${plural(s.failed, 'failed trial')}</option>
      ${groups.map(g => html`<option key=${g.class} value=${g.class}>${g.class}: ${g.cause} (${g.count})</option>`)}</select></label>` : null}
    ${group?.hint && html`<p class="muted">${group.hint}</p>`}
  <//>`;
}

/** Asks to run one trial again. @param {string} id of the sweep @param {number} index */
export function askRetryOne(id, index) {
  const run = async () => {
    const done = await post(sweepPath(id, '/actions/retry'), { index, failed_only: false });
    return done.changed ? `${id}/${index} will run again` : `${id}/${index} is as it was`;
  };
  ask(html`<${Confirm} title=${`Retry ${id}/${index}?`} verb="Retry 1 trial" run=${run} text="It gets a new attempt; the old ones stay in the history." />`, `Retry ${id}/${index}`);
}

/** Asks to cancel one trial. @param {string} id of the sweep @param {number} index */
export function askCancelOne(id, index) {
  const run = async () => (await post(sweepPath(id, `/trials/${index}/cancel`)), `${id}/${index} is cancelled`);
  ask(html`<${Confirm} title=${`Cancel ${id}/${index}?`} verb="Cancel 1 trial" danger run=${run} text="What runs of it is stopped, and it does not run again unless it is retried." />`, `Cancel ${id}/${index}`);
}

const NUMBER = /^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$/;

/** One value as JSON: what looks like a number keeps its digits. @param {string} text */
const valueJSON = text => (NUMBER.test(text) || text === 'true' || text === 'false' ? text : JSON.stringify(text));

/** The body of an extension, from `0.1,0.2` or `5:20:5` as the command line takes them. @param {string} key @param {string} text */
export function extensionBody(key, text) {
  const range = text.split(':').map(p => p.trim());
  const axis = range.length >= 2 && range.length <= 3 && range.every(p => NUMBER.test(p))
    ? `"interval":[${range.join(',')}]`
    : `"values":[${text.split(',').map(p => p.trim()).filter(Boolean).map(valueJSON).join(',')}]`;
  return `{"axes":[{"key":${JSON.stringify(key)},${axis}}]}`;
}

/** @param {any} s @param {{key?: string, values?: string}} [proposal] */
export function askExtend(s, proposal = {}) {
  ask(html`<${Extend} sweep=${s} proposal=${proposal} />`, `Extend ${s.sweep}`);
}

/** @param {{sweep: any, proposal: {key?: string, values?: string}}} props */
function Extend({ sweep: s, proposal }) {
  const [key, setKey] = useState(proposal.key ?? s.keys[0] ?? '');
  const [text, setText] = useState(proposal.values ?? '');
  const [preview, setPreview] = useState(/** @type {{added: number, error: any}} */ ({ added: 0, error: null }));
  const path = sweepPath(s.sweep, '/actions/extend');
  useEffect(() => {
    setPreview({ added: 0, error: null });
    if (!text.trim() || !key) return undefined;
    const control = new AbortController();
    const timer = setTimeout(() => post(`${path}?dry_run=true`, undefined, { raw: extensionBody(key, text), signal: control.signal }).then(
      done => setPreview({ added: done.changed, error: null }),
      error => control.signal.aborted || setPreview({ added: 0, error })), 250);
    return () => {
      clearTimeout(timer);
      control.abort();
    };
  }, [key, text]);
  const run = async () => {
    const done = await post(path, undefined, { raw: extensionBody(key, text) });
    return `${s.sweep} has ${plural(done.changed, 'new trial')}`;
  };
  return html`<${Confirm} title=${`Extend ${s.sweep}`} verb=${preview.added ? `Run ${plural(preview.added, 'new trial')}` : 'Run new trials'} ready=${preview.added > 0} run=${run}
    text="Adds values to a parameter. Only the new combinations run.">
    <div class="form"><label for="extend-key">parameter</label>
      <select id="extend-key" value=${key} onChange=${(/** @type {any} */ e) => setKey(e.target.value)}>${s.keys.map((/** @type {string} */ k) => html`<option key=${k}>${k}</option>`)}</select>
      <label for="extend-values">new values</label>
      <input id="extend-values" autofocus spellcheck="false" autocomplete="off" placeholder="0.03,0.1 or 5:20:5" value=${text} onInput=${(/** @type {any} */ e) => setText(e.target.value)} /></div>
    ${preview.error ? html`<${Failure} error=${preview.error} />` : html`<p class="muted">The same: <code>mlfnode extend ${s.sweep} --set ${key}=${text || '…'}</code></p>`}
  <//>`;
}

/** @param {any} node a member */
export function askDrain(node) {
  ask(html`<${Drain} node=${node} />`, `Drain ${node.node}`);
}

/** @param {{node: any}} props */
function Drain({ node }) {
  const [reason, setReason] = useState('');
  const run = async () => {
    await post(`/members/${encodeURIComponent(node.node)}/actions/drain`, { reason });
    return `${node.node} takes no more trials`;
  };
  return html`<${Confirm} title=${`Drain ${node.node}?`} verb="Drain" run=${run} text=${`It takes no more trials. ${plural(node.running, 'running trial')} ${node.running === 1 ? 'goes' : 'go'} on to the end.`}>
    <div class="form"><label for="drain-why">reason</label><input id="drain-why" autofocus maxlength="200" value=${reason} onInput=${(/** @type {any} */ e) => setReason(e.target.value)} /></div>
  <//>`;
}

/** @param {any} node a member */
export function askUndrain(node) {
  const run = async () => {
    await post(`/members/${encodeURIComponent(node.node)}/actions/undrain`);
    return `${node.node} takes trials again`;
  };
  ask(html`<${Confirm} title=${`Let ${node.node} take trials again?`} verb="Undrain" run=${run} text=${node.reason ? `It is ${node.quarantined ? 'in quarantine' : 'drained'}: ${node.reason}` : ''} />`, `Undrain ${node.node}`);
}

/** The buttons of a sweep. @param {{sweep: any}} props */
export function SweepActions({ sweep: s }) {
  if (!mayAct.value) return null;
  const button = (/** @type {string} */ text, /** @type {() => void} */ go, kind = '') => html`<button type="button" class=${kind} onClick=${go}>${text}</button>`;
  return html`<div class="actions">
    ${s.state === 'running' && button('Pause', () => askPause(s))}
    ${s.state === 'paused' && button('Resume', () => askResume(s), 'primary')}
    ${s.failed > 0 && button(`Retry failed ${s.failed}`, () => askRetry(s))}
    ${s.state !== 'cancelled' && s.keys?.length > 0 && button('Extend…', () => askExtend(s))}
    ${(s.state === 'running' || s.state === 'paused') && button('Cancel', () => askCancel(s), 'danger')}
  </div>`;
}

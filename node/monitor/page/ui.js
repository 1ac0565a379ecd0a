// Small parts that several views have.
import { useCallback, useEffect, useRef, useState } from 'preact/hooks';
import { html } from './html.js';
import { SIGNS, ago, count, duration, percent, stoppedApart, time, utcTime } from './format.js';
import { frozen, now } from './store.js';

/** A state with its sign. @param {{state: string, text?: string}} props */
export function State({ state, text }) {
  return html`<span class=${`state ${state}`}><span aria-hidden="true">${SIGNS[state] ?? '?'}</span> ${text ?? state}</span>`;
}

/** A time of day, with UTC in its tooltip. @param {{at: string|null|undefined, relative?: boolean}} props */
export function Time({ at, relative }) {
  if (!at) return html`<span class="muted">–</span>`;
  return html`<time datetime=${at} title=${utcTime(at)}>${relative ? ago(at, now.value) : time(at)}</time>`;
}

/** @type {Record<string, string>} */
const STATE_TEXTS = { stopped: 'stopped early' };

/** How far a sweep is, by state. @param {{of: any, class?: string}} props */
export function Progress({ of: all, ...rest }) {
  const states = ['succeeded', 'failed', 'stopped', 'cancelled', 'running'], of = stoppedApart(all);
  const done = all.succeeded + all.failed + all.cancelled;
  const label = `${percent(of.count ? done / of.count : 1)} done: ${states.filter(s => of[s]).map(s => `${count(of[s])} ${STATE_TEXTS[s] ?? s}`).join(', ') || 'nothing yet'}`;
  return html`<div class=${`progress ${rest.class ?? ''}`} role="img" aria-label=${label} title=${label}>
    ${states.map(s => of[s] > 0 && html`<span key=${s} class=${`part ${s}`} style=${{ width: `${Math.max(0.4, (100 * of[s]) / of.count)}%` }}></span>`)}
  </div>`;
}

/** Counts of a sweep's trials with their signs. @param {{of: any}} props */
export function Counts({ of: all }) {
  const of = stoppedApart(all);
  return html`<span class="counts">${['succeeded', 'failed', 'running', 'stopped', 'cancelled', 'pending'].map(s => (of[s] > 0 || s === 'succeeded')
    && html`<span key=${s} class=${`state ${s}`} title=${STATE_TEXTS[s] ?? s}>${count(of[s])} <span aria-hidden="true">${SIGNS[s]}</span><span class="hidden"> ${STATE_TEXTS[s] ?? s}</span></span>`)}</span>`;
}

/** How long a sweep goes on. @param {{of: any}} props */
export function Ending({ of }) {
  if (of.eta_seconds === null || of.eta_seconds === undefined || of.state !== 'running') return null;
  const at = new Date(now.value + of.eta_seconds * 1000);
  return html`<span title=${utcTime(at)}>${duration(Math.round(of.eta_seconds))} left, ends ${time(at).slice(0, -3)}</span>`;
}

/** What there is instead of what is asked for: why, and what to do. @param {{title: string, children?: any}} props */
export function Empty({ title, children }) {
  return html`<div class="empty"><p class="lead">${title}</p>${children}</div>`;
}

/** A command line that can be copied. @param {{text: string, label?: string}} props */
export function Command({ text, label = 'Copy' }) {
  const [copied, setCopied] = useState(false);
  const copy = async () => {
    await navigator.clipboard?.writeText(text).then(() => setCopied(true), () => {});
    setTimeout(() => setCopied(false), 1500);
  };
  return html`<div class="command"><code tabindex="0" role="group" aria-label="command">${text}</code><button type="button" class="quiet" onClick=${copy}>${copied ? 'Copied' : label}</button></div>`;
}

/** What went wrong, in words, with what to do. @param {{error: any, retry?: () => void}} props */
export function Failure({ error, retry }) {
  return html`<div class="notice failed" role="alert">
    <p><strong>${error.status === 403 ? 'Not allowed: ' : ''}${error.detail ?? error.message}</strong></p>
    ${error.hint && html`<p>${error.hint}</p>`}
    ${retry && html`<button type="button" onClick=${retry}>Try again</button>`}
  </div>`;
}

/** Waiting for the first answer. */
export const Loading = () => html`<p class="muted loading" role="status">Loading …</p>`;

/** A part of a page under a heading. @param {{title: any, aside?: any, class?: string, children?: any, stale?: boolean}} props */
export function Panel({ title, aside, children, stale, ...rest }) {
  return html`<section class=${`panel ${rest.class ?? ''} ${stale ? 'stale' : ''}`}>
    <header><h2>${title}</h2>${aside && html`<div class="aside">${aside}</div>`}</header>
    ${children}
  </section>`;
}

const LEAST = 1000; // ms between two questions for the same

/** Asks for one thing again and again, never twice at a time, and not more often than once a second. */
class Question {
  /** @param {(patch: any) => void} tell */
  constructor(tell) {
    this.tell = tell;
    this.asked = 0;
    this.dirty = false;
    this.timer = 0;
    this.control = new AbortController();
    this.busy = false;
    /** @type {(signal: AbortSignal) => Promise<any>} */
    this.load = () => Promise.resolve(null);
  }

  ask() {
    clearTimeout(this.timer);
    const wait = LEAST - (Date.now() - this.asked);
    if (this.busy) this.dirty = true;
    else if (wait > 0) this.timer = setTimeout(() => this.ask(), wait);
    else this.go();
  }

  async go() {
    const { signal } = this.control;
    this.busy = true;
    this.dirty = false;
    this.asked = Date.now();
    try {
      const data = await this.load(signal);
      if (!signal.aborted) this.tell({ data, error: null, at: Date.now() });
    } catch (error) {
      if (signal.aborted) return;
      this.tell({ error });
      const { status, retryAfter } = /** @type {any} */ (error);
      if (status === 503 || status === 502 || status === 0) this.timer = setTimeout(() => this.ask(), (retryAfter || 3) * 1000);
    } finally {
      this.busy = false;
    }
    if (this.dirty && !signal.aborted) this.ask();
  }

  end() {
    clearTimeout(this.timer);
    this.control.abort();
  }
}

/**
 * Asks for something, and again when `key` or `version` changes: immediately for another key, once a second at most for another version.
 * The old answer stays until the new one is there. A key of '' asks for nothing.
 * @param {string} key @param {(signal: AbortSignal) => Promise<any>} load @param {unknown} [version]
 * @returns {{data: any, error: any, at: number, reload: () => void}}
 */
export function useData(key, load, version = 0) {
  const [state, setState] = useState({ key, data: /** @type {any} */ (null), error: /** @type {any} */ (null), at: 0 });
  const question = useRef(/** @type {Question|null} */ (null));
  useEffect(() => {
    if (!key) return undefined;
    const q = new Question(patch => setState(s => ({ ...(s.key === key ? s : { data: null, at: 0 }), error: null, ...patch, key })));
    q.load = load;
    question.current = q;
    q.ask();
    return () => q.end();
  }, [key]);
  if (question.current) question.current.load = load;
  useEffect(() => {
    if (!frozen.value && version !== 0) question.current?.ask();
  }, [version]);
  const reload = useCallback(() => question.current?.ask(), []);
  return { ...(state.key === key ? state : { data: null, error: null, at: 0 }), reload };
}

/** A value that changes once in some time at most, for what is asked again when it does. @param {any} value @param {number} [least] ms */
export function useSlow(value, least = LEAST) {
  const [slow, setSlow] = useState(value);
  const at = useRef(0);
  useEffect(() => {
    if (Object.is(slow, value)) return undefined;
    const timer = setTimeout(() => {
      at.current = Date.now();
      setSlow(value);
    }, Math.max(0, least - (Date.now() - at.current)));
    return () => clearTimeout(timer);
  }, [value, slow]);
  return slow;
}

/** The answer of useData: what is being waited for, what went wrong, or what there is. @param {{of: any, children: (data: any) => any}} props */
export function Answer({ of, children }) {
  if (of.data !== null) return html`${of.error && html`<${Failure} error=${of.error} retry=${of.reload} />`}${children(of.data)}`;
  if (of.error) return html`<${Failure} error=${of.error} retry=${of.reload} />`;
  return html`<${Loading} />`;
}

/** A part that is loaded after the rest: an export of a module. @param {{load: () => Promise<any>, name: string, [prop: string]: any}} props */
export function Later({ load, name, ...props }) {
  const [got, setGot] = useState(/** @type {any} */ (null));
  useEffect(() => { load().then(m => setGot({ Part: m[name] }), e => setGot({ error: { message: e.message, hint: 'Reload the page.' } })); }, []);
  if (got?.Part) return html`<${got.Part} ...${props} />`;
  return got && html`<${Failure} error=${got.error} />`;
}

/** Sets the title of the tab while a page is shown. @param {string} text */
export function useTitle(text) {
  useEffect(() => {
    document.title = text ? `${text} · mlfnode` : 'mlfnode';
  }, [text]);
}

// The stream of events: one for all tabs of a browser. Web Locks elect the tab that holds it; a channel passes states on to the others.
// Events are states, not changes: nothing is lost when one is missed, and a new tab is given the newest of each.
import { send } from './api.js';

const QUIET = 45_000; // without a heart beat a stream is dead
const HIDDEN = 60_000; // after which a hidden tab wants nothing
const ASK_AGAIN = 10_000; // how often a tab says what it wants
const FORGET = 30_000; // without a word, a tab is gone
const REFUSED = 60_000; // how long a topic that was refused is left out

/**
 * @typedef {{name: string, key: string, topic: string, data: any}} State
 * @typedef {'live'|'connecting'|'paused'|'lost'|'refused'} Condition
 * @typedef {{condition: Condition, at: number, since: number, retry: number, why: string}} Line of communication
 */

/** The key of a state: a newer one of the same key replaces it. @param {string} name @param {any} data */
function keyOf(name, data) {
  if (name === 'sweep') return `sweep:${data.sweep}`;
  if (name === 'node') return `node:${data.node}`;
  if (name === 'trial') return `trial:${data.trial}`;
  return name;
}

/** Reads events off a stream. @param {ReadableStream<Uint8Array>} body @param {(e: {id: string, name: string, data: string}) => void} got */
async function readEvents(body, got, alive = () => {}) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '', id = '', name = '', data = '';
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    alive();
    const lines = (rest + value).split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) {
      if (line === '') {
        if (data) got({ id, name, data });
        name = data = '';
      } else if (line.startsWith('id: ')) id = line.slice(4);
      else if (line.startsWith('event: ')) name = line.slice(7);
      else if (line.startsWith('data: ')) data += line.slice(6);
    }
  }
}

/** The topics that a node refuses because there is no such sweep or trial. @param {string[]} topics @param {string} detail of the problem */
export function unknownTopics(topics, detail) {
  const sweep = /^there is no sweep (".*")$/.exec(detail)?.[1];
  if (sweep) return topics.filter(t => JSON.stringify(t.slice(t.indexOf(':') + 1).split('/')[0]) === sweep);
  const [, id, index] = /^(\S+) has \d+ trials?, and no trial (\S+)$/.exec(detail) ?? [];
  const trials = topics.filter(t => t.startsWith('trial:') && t.endsWith(`/${index}`));
  return trials.includes(`trial:${id}/${index}`) ? [`trial:${id}/${index}`] : trials; // a sweep may have been asked for by its name
}

/** The stream of this browser. */
export class Stream {
  /**
   * @param {(s: State) => void} onState @param {(l: Line) => void} onLine
   * @param {() => void} onAgain another tab has a session, or wants to try again
   */
  constructor(onState, onLine, onAgain) {
    this.onState = onState;
    this.onLine = onLine;
    this.onAgain = onAgain;
    this.id = Math.random().toString(36).slice(2);
    /** @type {Map<string, number>} */
    this.wanted = new Map();
    /** @type {Map<string, {topics: string[], at: number}>} what each tab wants, in the tab that leads */
    this.tabs = new Map();
    /** @type {Map<string, State>} */
    this.states = new Map();
    /** @type {Map<string, number>} when a topic was refused */
    this.refused = new Map();
    this.topics = '';
    this.last = '';
    this.delay = 0;
    this.leads = false;
    this.ready = false; // there is a session
    this.alone = false;
    this.stopped = false;
    this.hiddenSince = 0;
    /** @type {AbortController|null} */
    this.request = null;
    this.line = { condition: 'connecting', at: 0, since: Date.now(), retry: 0, why: '' };
    this.channel = 'BroadcastChannel' in window ? new BroadcastChannel('mlf-events') : null;
    this.channel?.addEventListener('message', e => this.hear(e.data));
    document.addEventListener('visibilitychange', () => {
      this.hiddenSince = document.hidden ? Date.now() : 0;
      this.say();
    });
    addEventListener('pagehide', () => this.channel?.postMessage({ gone: this.id }));
    addEventListener('pageshow', e => e.persisted && this.say());
    setInterval(() => this.say(), ASK_AGAIN);
    if (navigator.locks && this.channel) navigator.locks.request('mlf-events', () => this.lead());
    else this.lead();
  }

  /** Wants a topic until the function that it gives is called. @param {string} topic */
  want(topic) {
    this.wanted.set(topic, (this.wanted.get(topic) ?? 0) + 1);
    this.sayLater();
    return () => {
      const left = (this.wanted.get(topic) ?? 1) - 1;
      if (left > 0) this.wanted.set(topic, left);
      else this.wanted.delete(topic);
      this.sayLater();
    };
  }

  sayLater() {
    clearTimeout(this.saying);
    this.saying = setTimeout(() => this.say(), 30);
  }

  /** Tells the tab that leads what this one wants. */
  say() {
    const asleep = this.hiddenSince > 0 && Date.now() - this.hiddenSince > HIDDEN;
    const topics = asleep || this.stopped ? [] : [...this.wanted.keys()];
    if (this.leads) this.hear({ want: this.id, topics });
    else this.channel?.postMessage({ want: this.id, topics });
  }

  /** @param {any} message of another tab */
  hear(message) {
    if (message.state && !this.leads) {
      if (!this.stopped) this.onState(message.state);
    } else if (message.line && !this.leads) {
      this.line = message.line;
      this.tellLine();
    }
    else if (message.leads) this.say();
    else if (message.again) {
      this.onAgain();
      if (this.leads) this.retryNow();
    }
    else if (this.leads && message.gone) this.tabs.delete(message.gone);
    else if (this.leads && message.want) {
      const before = new Set(this.tabs.get(message.want)?.topics);
      this.tabs.set(message.want, { topics: message.topics, at: Date.now() });
      const more = message.topics.filter((/** @type {string} */ t) => !before.has(t));
      if (more.length && message.want !== this.id) {
        this.channel?.postMessage({ line: this.line });
        for (const s of this.states.values()) this.channel?.postMessage({ state: s });
      }
    }
    if (this.leads) this.choose();
  }

  /** Holds the stream for all tabs, as long as this one is open. */
  lead() {
    this.leads = true;
    this.channel?.postMessage({ leads: this.id });
    this.say();
    return new Promise(() => {});
  }

  /** Opens the stream again when other topics are wanted. */
  choose() {
    const topics = new Set();
    for (const [id, tab] of this.tabs) {
      if (Date.now() - tab.at > FORGET && id !== this.id) this.tabs.delete(id);
      else tab.topics.forEach(t => topics.add(t));
    }
    if (this.alone) topics.delete('nodes');
    for (const [t, at] of this.refused) {
      if (Date.now() - at < REFUSED) topics.delete(t);
      else this.refused.delete(t);
    }
    const text = [...topics].sort().slice(0, 32).join(',');
    if (text === this.topics) return;
    const more = [...topics].some(t => !this.topics.split(',').includes(t));
    this.topics = text;
    if (more) this.last = ''; // of a new topic all states are wanted
    this.delay = 0;
    this.open();
  }

  /** Opens the stream immediately. */
  retryNow() {
    this.ready = true;
    if (!this.leads) return;
    this.delay = 0;
    this.open();
  }

  /** The same in all tabs. */
  retryAll() {
    this.channel?.postMessage({ again: true });
    this.retryNow();
  }

  /** @param {Partial<Line>} patch */
  report(patch) {
    const was = this.line.condition;
    this.line = { ...this.line, ...patch };
    if (this.line.condition !== was) this.line.since = Date.now();
    this.tellLine();
    this.channel?.postMessage({ line: this.line });
  }

  /** To a tab that is stopped the stream of the others is none of its own. */
  tellLine() { this.onLine(this.stopped ? { ...this.line, condition: 'paused' } : this.line); }

  async open() {
    this.request?.abort();
    clearTimeout(this.timer);
    if (!this.ready) return;
    if (!this.topics) {
      this.report({ condition: 'paused', why: '' });
      return;
    }
    const request = new AbortController();
    this.request = request;
    let watchdog = 0;
    const alive = () => {
      clearTimeout(watchdog);
      watchdog = setTimeout(() => request.abort(), QUIET);
      if (request === this.request) this.report({ condition: 'live', at: Date.now(), why: '' });
    };
    let why = 'the stream was cut', wait = 0;
    try {
      /** @type {Record<string, string>} */
      const headers = this.last ? { 'Last-Event-ID': this.last } : {};
      const { resp, problem } = await send('/events', { query: { topics: this.topics }, signal: request.signal, headers, cache: 'no-store' });
      if (problem) {
        const unknown = problem.status === 404 ? unknownTopics(this.topics.split(','), problem.detail) : [];
        unknown.forEach(t => this.refused.set(t, Date.now())); // it must not keep the others from being sent
        const alone = problem.status === 409 && !this.alone; // a node that stands alone has no nodes to report
        if (alone || unknown.length) {
          this.alone ||= alone;
          if (request === this.request) this.choose();
          return;
        }
        why = problem.detail;
        wait = problem.retryAfter * 1000;
      } else {
        this.delay = 0;
        if (this.line.condition !== 'live') this.forgetSweeps();
        alive();
        await readEvents(/** @type {ReadableStream<Uint8Array>} */ (resp.body), e => this.got(request, e), alive);
      }
    } catch (err) {
      why = err instanceof TypeError ? 'mlfnode monitor does not answer' : 'the stream was cut';
    }
    clearTimeout(watchdog);
    if (request !== this.request) return;
    if (this.alone) { // it may be in a cluster by now
      this.alone = false;
      setTimeout(() => this.choose(), 0);
    }
    this.delay = Math.min(30_000, this.delay ? this.delay * 2 : 500);
    wait = Math.max(wait, this.delay) * (0.75 + Math.random() / 2);
    this.report({ condition: 'lost', why: this.bye || why, retry: Date.now() + wait });
    this.bye = '';
    this.timer = setTimeout(() => this.open(), wait);
  }

  /** Forgets sweeps that may have ended while the stream was away: nothing reports that. */
  forgetSweeps() {
    const own = this.topics.split(',');
    for (const { name, key } of this.states.values()) if (name === 'sweep' && !own.includes(key)) this.states.delete(key);
  }

  /** @param {AbortController} request @param {{id: string, name: string, data: string}} e */
  got(request, e) {
    if (request !== this.request) return;
    if (e.id) this.last = e.id;
    let data;
    try {
      data = JSON.parse(e.data);
    } catch {
      return;
    }
    if (e.name === 'bye') {
      this.bye = data.reason;
      return;
    }
    const state = { name: e.name, key: keyOf(e.name, data), topic: '', data };
    this.states.set(state.key, state);
    if (!this.stopped) this.onState(state);
    this.channel?.postMessage({ state });
  }

  /** Stops, or goes on, at the user's wish. @param {boolean} stopped */
  pause(stopped) {
    this.stopped = stopped;
    this.tellLine();
    if (!stopped && this.leads) this.states.forEach(s => this.onState(s));
    this.say();
  }
}

// The view of output: a window of lines, followed while it grows, searched through all of it.
import { useEffect, useMemo, useRef, useState } from 'preact/hooks';
import { look, parse, plain } from './ansi.js';
import { PREFIX, search, sessionKey, sweepPath } from './api.js';
import { html } from './html.js';
import { bytes, count, time } from './format.js';
import { useKeys } from './keys.js';
import { Log } from './logstream.js';
import { Failure } from './ui.js';

const LINE = 17; // px
const WRAPPED = 1500; // lines in one window when they wrap: their heights are not known
const PAUSE = 500; // ms between two looks

/** The output of one attempt of a trial. @param {{sweep: string, index: number, attempt?: number}} props */
export function TrialLog({ sweep, index, attempt }) {
  const source = useMemo(() => ({
    open: (/** @type {string} */ stream) => new Log(sweep, index, { attempt, stream }),
    name: `${sweep}/${index}`, size: bytes,
    file: (/** @type {string} */ stream) => `${PREFIX}${sweepPath(sweep, `/trials/${index}/log.txt`)}${search({ attempt, stream, session: sessionKey() })}`,
    empty: (/** @type {boolean} */ ended) => (ended ? 'It has printed nothing.' : 'Nothing has been printed yet.'),
  }), [sweep, index, attempt]);
  return html`<${LogView} source=${source} />`;
}

/**
 * @param {{source: {open: (stream: string) => import('./logstream.js').Lines, name: string, size?: (n: number) => string, file?: (stream: string) => string,
 *   empty: (ended: boolean) => any, label?: (line: any) => any}}} props Another source is another log; `label` gives what stands before a line
 */
export function LogView({ source }) {
  const [, draw] = useState(0);
  const [trouble, setTrouble] = useState(/** @type {any} */ (null));
  const [show, setShow] = useState({ wrap: innerWidth < 720, time: false, colours: true });
  const [stream, setStream] = useState('');
  const [follow, setFollow] = useState(true);
  const [loaded, setLoaded] = useState(false);
  const following = useRef(true), busy = useRef(false), box = useRef(/** @type {HTMLDivElement|null} */ (null));
  const [top, setTop] = useState(0);
  const log = useMemo(() => source.open(stream), [source, stream]);
  following.current = follow;
  useEffect(() => {
    const control = new AbortController(), { signal } = control;
    setFollow(true);
    setLoaded(false);
    watch(log, following, signal, () => {
      setLoaded(true);
      draw(n => n + 1);
    }, setTrouble);
    return () => control.abort();
  }, [log]);
  const find = useFind(log, async hit => {
    setFollow(false);
    if (!await log.show(hit)) return;
    draw(n => n + 1);
    const at = log.lineAt(hit);
    if (box.current && !show.wrap) requestAnimationFrame(() => { if (box.current) box.current.scrollTop = Math.max(0, at * LINE - box.current.clientHeight / 2); });
  });

  const { lines } = log, last = lines.length, height = box.current?.clientHeight || 600;
  useEffect(() => {
    if (follow && box.current) box.current.scrollTop = box.current.scrollHeight;
  }, [follow, last, log.next, show.wrap]);
  const load = async (/** @type {() => Promise<any>} */ go) => {
    if (busy.current) return;
    busy.current = true;
    await go().catch(setTrouble);
    busy.current = false;
    draw(n => n + 1);
  };
  const earlier = () => load(async () => {
    const more = await log.earlier();
    if (box.current) box.current.scrollTop += more * LINE;
  });
  const scrolled = () => {
    const el = box.current;
    if (!el) return;
    setTop(el.scrollTop);
    const rest = el.scrollHeight - el.scrollTop - el.clientHeight;
    if (el.scrollTop < top - 2 && follow && rest > 4) setFollow(false);
    else if (rest < 4 && !follow && log.next >= log.total) setFollow(true);
    if (show.wrap || follow) return;
    if (el.scrollTop < 4 * LINE && log.from > log.first) earlier();
    else if (rest < 4 * LINE && log.next < log.total) load(() => log.later(false));
  };
  const toEnd = () => load(async () => {
    if (log.next < log.total) await log.tail();
    setFollow(true);
  });
  useKeys([
    { key: 'f', text: 'follow the log, or stop', run: () => (follow ? setFollow(false) : toEnd()) },
    { key: 'n', text: 'next hit in the log', run: () => find.go(1) }, { key: 'N', text: 'previous hit in the log', run: () => find.go(-1) },
  ], [follow, find.at, find.hits, log]);

  const current = find.hit ? log.lineAt(find.hit) : -1;
  let first = Math.max(0, Math.floor(top / LINE) - 20), end = Math.min(last, first + Math.ceil(height / LINE) + 40);
  if (show.wrap) {
    first = Math.max(0, Math.min(last - WRAPPED, (current >= 0 && !follow ? current : last) - WRAPPED / 2));
    end = Math.min(last, first + WRAPPED);
  }
  useEffect(() => {
    if (show.wrap && current >= 0) box.current?.querySelector('.current')?.scrollIntoView({ block: 'center' });
  }, [current, show.wrap]);
  const low = find.text.toLowerCase();
  const mark = (/** @type {any} */ l, /** @type {number} */ i) => (i === current ? 'current' : low && plain(l.text).toLowerCase().includes(low) ? 'hit' : '');
  const toggle = (/** @type {string} */ name, /** @type {string} */ text) => html`<label><input type="checkbox" checked=${show[name]}
    onChange=${(/** @type {any} */ e) => setShow({ ...show, [name]: e.target.checked })} /> ${text}</label>`;
  return html`<div class="logbar">${find.bar}
      <select aria-label="Stream" value=${stream} onChange=${(/** @type {any} */ e) => setStream(e.target.value)}><option value="">all streams</option><option>stdout</option><option>stderr</option><option>setup</option></select>
      ${toggle('wrap', 'wrap')}${toggle('time', 'time')}${toggle('colours', 'colours')}
      ${source.size && html`<span class="muted">${source.size(log.total)}</span>`}
      ${source.file && html`<a href=${source.file(stream)} download=${`${source.name.replace('/', '-')}.log`}>download</a>`}
      <button type="button" aria-pressed=${follow} onClick=${() => (follow ? setFollow(false) : toEnd())} title="f">${log.ended ? 'At the end' : 'Follow'}</button>
    </div>
    ${trouble && html`<${Failure} error=${trouble} />`}
    ${show.wrap && log.from > log.first && html`<p class="pad"><button type="button" onClick=${earlier}>Earlier lines</button></p>`}
    <div class=${`log ${show.wrap ? 'wraps' : ''}`} ref=${box} style=${{ maxHeight: `${Math.max(8, last + 2) * LINE * (show.wrap ? 3 : 1)}px` }} tabindex="0" role="log" aria-live="off" aria-label=${`Output of ${source.name}`} onScroll=${scrolled}>
      ${last === 0 && html`<p class="pad muted">${loaded ? source.empty(log.ended) : 'Loading …'}</p>`}
      ${!show.wrap && html`<div style=${{ height: `${last * LINE}px` }}></div>`}
      <div class="lines" style=${{ top: `${show.wrap ? 0 : first * LINE}px` }}>
        ${lines.slice(first, end).map((l, i) => html`<${LineView} key=${`${l.of}${l.offset}`} line=${l} label=${source.label} size=${l.text.length} time=${show.time} colours=${show.colours} mark=${mark(l, first + i)} />`)}
      </div>
    </div>
    ${log.cut > 0 && html`<p class="pad muted">${bytes(log.cut)} were never stored: they are over log_limit, or the disk was full.</p>`}
    ${log.gone && html`<p class="pad muted">${log.gone === 'all' ? 'It has' : 'Its beginning has'} been removed since, as retention.logs says.</p>`}`;
}

/** Reads a log until its end. @param {import('./logstream.js').Lines} log @param {{current: boolean}} following @param {AbortSignal} signal @param {() => void} changed @param {(p: any) => void} onTrouble */
async function watch(log, following, signal, changed, onTrouble) {
  let wait = 0;
  for (let begun = false; !signal.aborted && !(begun && log.ended && log.next >= log.total);) {
    try {
      let more = false;
      if (!begun) await log.tail(signal);
      else if (following.current) more = await log.later(true, signal);
      begun = true;
      wait = more ? 0 : document.hidden ? 4 * PAUSE : PAUSE;
      onTrouble(null);
      changed();
    } catch (err) {
      if (signal.aborted) return;
      const { status } = /** @type {any} */ (err);
      onTrouble(err);
      if (status >= 400 && status < 500) return;
      wait = Math.min(10_000, Math.max(1000, wait * 2));
    }
    await new Promise(done => setTimeout(done, wait));
  }
}

/** The search in a log: its field, its hits, and the one that is shown. @param {import('./logstream.js').Lines} log @param {(hit: any) => void} show */
function useFind(log, show) {
  const [text, setText] = useState(''), [at, setAt] = useState(-1);
  const [found, setFound] = useState(/** @type {{hits: any[], more: boolean, done: boolean, failed?: boolean}} */ ({ hits: [], more: false, done: false }));
  const wanted = useRef(false), latest = useRef(show);
  latest.current = show;
  const { hits } = found;
  const goTo = (/** @type {number} */ n, all = hits) => {
    if (!all.length) return;
    const to = (n + all.length) % all.length;
    setAt(to);
    latest.current(all[to]);
  };
  useEffect(() => {
    setFound({ hits: [], more: false, done: false });
    setAt(-1);
    if (!text) return undefined;
    const control = new AbortController();
    const timer = setTimeout(() => log.search(text, control.signal).then(r => {
      setFound({ hits: r.hits, more: r.next !== undefined, done: true });
      if (wanted.current) goTo(0, r.hits);
      wanted.current = false;
    }, () => control.signal.aborted || setFound({ hits: [], more: false, done: true, failed: true })), 300);
    return () => {
      clearTimeout(timer);
      control.abort();
    };
  }, [text, log]);
  const go = (/** @type {number} */ step) => (found.done ? goTo(at < 0 && step < 0 ? hits.length - 1 : at + step) : (wanted.current = true));
  const bar = html`<input type="search" data-search aria-label="Search the log" placeholder="search …  /" value=${text} onInput=${(/** @type {any} */ e) => setText(e.target.value)}
      onKeyDown=${(/** @type {any} */ e) => { if (e.key === 'Enter') go(e.shiftKey ? -1 : 1); }} />
    ${text && html`<span class="muted" role="status">${!found.done ? 'searching …' : hits.length ? `${at >= 0 ? `${count(at + 1)} of ` : ''}${count(hits.length)}${found.more ? ' or more' : ''} hits` : found.failed ? 'the search failed' : 'no hit'}</span>
      <button type="button" class="quiet" aria-label="Hit before" onClick=${() => go(-1)}>▴</button><button type="button" class="quiet" aria-label="Next hit" onClick=${() => go(1)}>▾</button>`}`;
  return { text, at, hits, hit: at >= 0 ? hits[at] : null, go, bar };
}

/** @param {{line: any, size: number, time: boolean, colours: boolean, mark: string, label?: (line: any) => any}} props */
function LineView({ line, time: withTime, colours, mark, label }) {
  const { pieces, cut } = parse(line.text);
  return html`<div class=${`ln ${line.stream} ${mark}`}>${label?.(line)}${withTime && html`<span class="at">${time(line.time)}</span>`}${pieces.map((p, i) => {
    const { class: name, style } = colours ? look(p.style) : { class: '', style: {} };
    return name || Object.keys(style).length ? html`<span key=${i} class=${name} style=${style}>${p.text}</span>` : p.text;
  })}${cut > 0 && html`<span class="note"> … ${count(cut)} more characters</span>`}</div>`;
}

/** Text that may have escape sequences, as lines. @param {{text: string}} props */
export function Output({ text }) {
  return text.split('\n').map((line, i) => html`<${LineView} key=${i} line=${{ text: line, stream: '' }} size=${line.length} time=${false} colours mark="" />`);
}

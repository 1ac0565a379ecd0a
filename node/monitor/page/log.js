// The view of a trial's output: a window of lines, followed while it grows, searched through all of it.
import { useEffect, useMemo, useRef, useState } from 'preact/hooks';
import { look, parse, plain } from './ansi.js';
import { html } from './html.js';
import { bytes, count, time } from './format.js';
import { useKeys } from './keys.js';
import { Log, readLog } from './logstream.js';
import { Failure } from './ui.js';

const LINE = 17; // px
const WRAPPED = 1500; // lines in one window when they wrap: their heights are not known
const HITS = 1000;

/** @param {{sweep: string, index: number, attempt?: number, running: boolean}} props */
export function LogView({ sweep, index, attempt, running }) {
  const [, draw] = useState(0);
  const [trouble, setTrouble] = useState(/** @type {any} */ (null));
  const [done, setDone] = useState(false);
  const [show, setShow] = useState({ stream: '', wrap: innerWidth < 720, time: false, colours: true });
  const [follow, setFollow] = useState(true);
  const [find, setFind] = useState(''), [hit, setHit] = useState(-1);
  const box = useRef(/** @type {HTMLDivElement|null} */ (null));
  const [top, setTop] = useState(0);
  const log = useMemo(() => new Log(() => draw(n => n + 1)), [sweep, index, attempt]);
  useEffect(() => {
    const control = new AbortController();
    setDone(false);
    setFollow(true);
    readLog(log, sweep, index, { attempt, follow: running, signal: control.signal, onTrouble: setTrouble }).then(() => control.signal.aborted || setDone(true));
    return () => control.abort();
  }, [log, running]);

  const lines = show.stream ? log.lines.filter(l => l.stream === show.stream) : log.lines;
  const hits = useHits(lines, find, log.number);
  const height = box.current?.clientHeight ?? 600;
  const last = lines.length;
  useEffect(() => {
    if (follow && box.current) box.current.scrollTop = box.current.scrollHeight;
  }, [follow, last, log.bytes, show.wrap]);
  const scrolled = () => {
    const el = box.current;
    if (!el) return;
    setTop(el.scrollTop);
    const atEnd = el.scrollHeight - el.scrollTop - el.clientHeight < 4;
    if (atEnd !== follow && (atEnd || el.scrollTop < top - 2)) setFollow(atEnd);
  };
  const goTo = (/** @type {number} */ n) => {
    if (!hits.length) return;
    const at = (n + hits.length) % hits.length;
    setHit(at);
    setFollow(false);
    if (box.current && !show.wrap) box.current.scrollTop = Math.max(0, hits[at] * LINE - height / 2);
  };
  useKeys([
    { key: 'f', text: 'follow the log, or stop', run: () => setFollow(f => !f) },
    { key: 'n', text: 'next hit in the log', run: () => goTo(hit + 1) }, { key: 'N', text: 'hit before', run: () => goTo(hit - 1) },
  ], [hit, hits, follow]);

  let first = Math.max(0, Math.floor(top / LINE) - 20), end = Math.min(last, first + Math.ceil(height / LINE) + 40);
  if (show.wrap) {
    const centre = hit >= 0 && !follow ? hits[hit] : last;
    first = Math.max(0, Math.min(last - WRAPPED, centre - WRAPPED / 2));
    end = Math.min(last, first + WRAPPED);
  }
  useEffect(() => {
    if (show.wrap && hit >= 0) box.current?.querySelector('.current')?.scrollIntoView({ block: 'center' });
  }, [hit, show.wrap]);
  const marked = new Set(hits);
  const toggle = (/** @type {string} */ name, /** @type {string} */ text) => html`<label><input type="checkbox" checked=${show[name]}
    onChange=${(/** @type {any} */ e) => setShow({ ...show, [name]: e.target.checked })} /> ${text}</label>`;
  return html`<div class="logbar">
      <input type="search" data-search aria-label="Search the log" placeholder="search …  /" value=${find} onInput=${(/** @type {any} */ e) => { setFind(e.target.value); setHit(-1); }}
        onKeyDown=${(/** @type {any} */ e) => { if (e.key === 'Enter') goTo(hit + (e.shiftKey ? -1 : 1)); }} />
      ${find && html`<span class="muted" role="status">${hits.length ? `${hit >= 0 ? `${count(hit + 1)} of ` : ''}${count(hits.length)}${hits.length === HITS ? ' or more' : ''} hits` : 'no hit'}</span>
        <button type="button" class="quiet" aria-label="Hit before" onClick=${() => goTo(hit - 1)}>▴</button><button type="button" class="quiet" aria-label="Next hit" onClick=${() => goTo(hit + 1)}>▾</button>`}
      <select aria-label="Stream" value=${show.stream} onChange=${(/** @type {any} */ e) => setShow({ ...show, stream: e.target.value })}><option value="">all streams</option><option>stdout</option><option>stderr</option><option>setup</option></select>
      ${toggle('wrap', 'wrap')}${toggle('time', 'time')}${toggle('colours', 'colours')}
      <span class="muted">${bytes(log.bytes)}</span>
      <${Save} sweep=${sweep} index=${index} attempt=${attempt} />
      <button type="button" aria-pressed=${follow} onClick=${() => setFollow(!follow)} title="f">${running && !done ? 'Follow' : 'At the end'}</button>
    </div>
    ${trouble && html`<${Failure} error=${trouble} />`}
    <div class=${`log ${show.wrap ? 'wraps' : ''}`} ref=${box} style=${{ maxHeight: `${Math.max(8, last + 2) * LINE * (show.wrap ? 3 : 1)}px` }} tabindex="0" role="log" aria-live="off" aria-label=${`Output of ${sweep}/${index}`} onScroll=${scrolled}>
      ${last === 0 && html`<p class="loading muted">${done ? 'It has printed nothing.' : running ? 'Nothing has been printed yet.' : 'Loading …'}</p>`}
      ${!show.wrap && html`<div style=${{ height: `${last * LINE}px` }}></div>`}
      <div class="lines" style=${{ top: `${show.wrap ? 0 : first * LINE}px` }}>
        ${first === 0 && log.dropped > 0 && html`<div class="ln note">${count(log.dropped)} lines before are not kept here; Save gets all</div>`}
        ${lines.slice(first, end).map((l, i) => html`<${LineView} key=${l.number} line=${l} size=${l.text.length} time=${show.time} colours=${show.colours}
          mark=${marked.has(first + i) ? (hits[hit] === first + i ? 'current' : 'hit') : ''} />`)}
      </div>
    </div>
    ${log.notes.map(n => html`<p key=${n} class="loading muted">${n}</p>`)}`;
}

/** Places of the lines that hold a text, at most 1000. @param {any[]} lines @param {string} find @param {number} grown */
function useHits(lines, find, grown) {
  return useMemo(() => {
    /** @type {number[]} */
    const hits = [];
    const low = find.toLowerCase();
    for (let i = 0; low && i < lines.length && hits.length < HITS; i++) {
      if (plain(lines[i].text).toLowerCase().includes(low)) hits.push(i);
    }
    return hits;
  }, [find, grown, lines.length]);
}

/** @param {{line: import('./logstream.js').Line, size: number, time: boolean, colours: boolean, mark: string}} props */
function LineView({ line, time: withTime, colours, mark }) {
  const { pieces, cut } = parse(line.text);
  return html`<div class=${`ln ${line.stream} ${mark}`}>${withTime && html`<span class="at">${time(line.time)}</span>`}${pieces.map((p, i) => {
    const { class: name, style } = colours ? look(p.style) : { class: '', style: {} };
    return name || Object.keys(style).length ? html`<span key=${i} class=${name} style=${style}>${p.text}</span>` : p.text;
  })}${cut > 0 && html`<span class="note"> … ${count(cut)} more characters</span>`}</div>`;
}

/** Text that may have escape sequences, as lines. @param {{text: string}} props */
export function Output({ text }) {
  return text.split('\n').map((line, i) => html`<${LineView} key=${i} line=${{ text: line, stream: '', time: '', number: i }} size=${line.length} time=${false} colours mark="" />`);
}

/** Saves the whole output as a file. @param {{sweep: string, index: number, attempt?: number}} props */
function Save({ sweep, index, attempt }) {
  const [busy, setBusy] = useState(false);
  const save = async () => {
    setBusy(true);
    /** @type {string[]} */
    const texts = [];
    const log = new Log(() => {}, l => texts.push(`${l.text}\n`));
    await readLog(log, sweep, index, { attempt, signal: AbortSignal.timeout(600_000) });
    log.lines.filter(l => l.open).forEach(l => texts.push(l.text));
    const link = document.createElement('a');
    link.href = URL.createObjectURL(new Blob(texts, { type: 'text/plain' }));
    link.download = `${sweep}-${index}.log`;
    link.click();
    URL.revokeObjectURL(link.href);
    setBusy(false);
  };
  return html`<button type="button" class="quiet" disabled=${busy} onClick=${save}>${busy ? 'Saving …' : 'Save'}</button>`;
}

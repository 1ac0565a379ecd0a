// Filters as the API takes them, `d[lr]=3..7` and so on: reading them, and changing one part of them. No DOM.

/** @typedef {{kind: string, key: string, name: string, text: string}} Condition */

/** Takes a filter apart. @param {string} filter @returns {Condition} */
export function parse(filter) {
  const at = filter.indexOf('=', filter.indexOf(']') + 1);
  const name = at < 0 ? filter : filter.slice(0, at);
  const open = name.indexOf('[');
  return {
    kind: open < 0 ? name : name.slice(0, open), key: open < 0 ? '' : name.slice(open + 1, -1),
    name, text: at < 0 ? '' : filter.slice(at + 1),
  };
}

/** The two ends of LO..HI, infinite where one is left out; null for what is not a range. @param {string} text @returns {[number, number]|null} */
export function span(text) {
  const at = text.indexOf('..');
  const [lo, hi] = at < 0 ? [text, text] : [text.slice(0, at), text.slice(at + 2)];
  if (at < 0 && lo === '') return null;
  const ends = [lo === '' ? -Infinity : Number(lo), hi === '' ? Infinity : Number(hi)];
  return ends.some(Number.isNaN) ? null : /** @type {[number, number]} */ (ends);
}

/** The ranges of one name in a filter, sorted. @param {string[]} where @param {string} name @returns {[number, number][]} */
export function ranges(where, name) {
  /** @type {[number, number][]} */
  const all = [];
  for (const f of where) {
    const c = parse(f), s = c.name === name && span(c.text);
    if (s) all.push(s);
  }
  return all.sort((a, b) => a[0] - b[0]);
}

/** Puts ranges in the place of those of a name; none takes the name out. @param {string[]} where @param {string} name @param {[number, number][]} list */
export function setRanges(where, name, list) {
  const rest = where.filter(f => parse(f).name !== name);
  return [...rest, ...list.map(([lo, hi]) => `${name}=${end(lo)}..${end(hi)}`)];
}

/** @param {number} v */
const end = v => (Number.isFinite(v) ? String(v) : '');

/** Puts texts in the place of those of a name. @param {string[]} where @param {string} name @param {string[]} texts */
export function setTexts(where, name, texts) {
  return [...where.filter(f => parse(f).name !== name), ...texts.map(t => `${name}=${t}`)];
}

/** Neighbouring positions as ranges. @param {number[]} positions @returns {[number, number][]} */
export function compact(positions) {
  /** @type {[number, number][]} */
  const out = [];
  for (const p of [...new Set(positions)].sort((a, b) => a - b)) {
    const last = out[out.length - 1];
    if (last && p === last[1] + 1) last[1] = p;
    else out.push([p, p]);
  }
  return out;
}

/** Reports for each level of an axis whether a filter lets it through: wholly or in part. @param {string[]} where @param {any} axis */
export function chosen(where, axis) {
  const d = ranges(where, `d[${axis.key}]`);
  const p = where.map(parse).filter(c => c.name === `p[${axis.key}]`);
  return axis.levels.map((/** @type {any} */ l) => {
    const inD = d.length === 0 || d.some(([lo, hi]) => hi >= l.lo && lo <= l.hi - 1);
    const inP = p.length === 0 || p.some(c => {
      const s = span(c.text);
      return c.text === l.label || (s !== null && l.number !== null && l.number >= s[0] && l.number <= s[1]);
    });
    return inD && inP;
  });
}

/** The filter with one level of an axis switched. All levels are the same as no filter. @param {string[]} where @param {any} axis @param {number} level */
export function toggleLevel(where, axis, level) {
  const on = chosen(where, axis);
  on[level] = !on[level];
  return setLevels(where, axis, on);
}

/** The filter with exactly these levels of an axis. @param {string[]} where @param {any} axis @param {boolean[]} on */
export function setLevels(where, axis, on) {
  const rest = where.filter(f => parse(f).name !== `p[${axis.key}]`), name = `d[${axis.key}]`;
  if (on.every(Boolean) || !on.some(Boolean)) return setRanges(rest, name, []);
  /** @type {[number, number][]} */
  const list = [];
  axis.levels.forEach((/** @type {any} */ l, /** @type {number} */ i) => {
    if (!on[i]) return;
    const last = list[list.length - 1];
    if (last && last[1] === l.lo - 1) last[1] = l.hi - 1;
    else list.push([l.lo, l.hi - 1]);
  });
  return setRanges(rest, name, list);
}

/** Level ranges of an axis as a filter of positions. @param {string[]} where @param {any} axis @param {[number, number][]} list from and to, inclusive */
export function brush(where, axis, list) {
  const on = axis.levels.map((/** @type {any} */ _, /** @type {number} */ i) => list.some(([a, b]) => i >= a && i <= b));
  return list.length ? setLevels(where, axis, on) : setRanges(where.filter(f => parse(f).name !== `p[${axis.key}]`), `d[${axis.key}]`, []);
}

/** The levels that a filter selects, as ranges; none without a filter. @param {string[]} where @param {any} axis @returns {[number, number][]} */
export function brushed(where, axis) {
  const on = chosen(where, axis);
  if (on.every(Boolean)) return [];
  return compact(on.flatMap((/** @type {boolean} */ o, /** @type {number} */ i) => (o ? [i] : [])));
}

/** One part of a filter for people: all conditions of a name. @param {string} name @param {string[]} texts @param {any[]} axes */
export function words(name, texts, axes) {
  const { kind, key } = parse(name);
  const axis = axes.find(a => a.key === key);
  if (kind === 'd' && axis) {
    const levels = axis.levels;
    const parts = texts.map(t => {
      const s = span(t);
      if (!s) return t;
      const inside = levels.filter((/** @type {any} */ l) => s[1] >= l.lo && s[0] <= l.hi - 1);
      if (inside.length === 0) return 'nothing';
      const [first, last] = [inside[0].label, inside[inside.length - 1].label];
      return first === last ? first : inside.length === 2 && axis.scale === 'category' ? `${first}, ${last}` : `${first} … ${last}`;
    });
    return `${key}: ${parts.join(', ')}`;
  }
  const what = kind === 'p' || kind === 'd' || kind === 'm' ? key : kind === 't' ? 'start' : kind;
  return `${what}: ${texts.map(t => range(t, kind === 't' ? ' s' : '')).join(', ')}`;
}

/** @param {string} text @param {string} unit */
function range(text, unit) {
  const s = text.includes('..') ? span(text) : null;
  if (!s) return text;
  const n = (/** @type {number} */ v) => Number(v.toPrecision(4)) + unit;
  if (s[1] === Infinity) return `≥ ${n(s[0])}`;
  if (s[0] === -Infinity) return `≤ ${n(s[1])}`;
  return `${n(s[0])} … ${n(s[1])}`;
}

/** Groups conditions by name, in the order in which they stand. @param {string[]} where @returns {[string, string[]][]} */
export function grouped(where) {
  /** @type {Map<string, string[]>} */
  const by = new Map();
  for (const f of where) {
    const c = parse(f);
    by.set(c.name, [...(by.get(c.name) ?? []), c.text]);
  }
  return [...by];
}

/** Bins as ranges of values; open where they reach the ends. @param {number[]} edges @param {[number, number][]} list @returns {[number, number][]} */
export function valueRanges(edges, list) {
  const n = edges.length - 1;
  return list.filter(([f, t]) => f > 0 || t < n - 1).map(([f, t]) => [f <= 0 ? -Infinity : edges[f], t >= n - 1 ? Infinity : edges[t + 1]]);
}

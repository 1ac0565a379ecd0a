// Tests of the modules that know no page: node --test testdata
import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as filter from '../charts/filter.js';
import * as heat from '../charts/heat.js';
import * as hist from '../charts/histogram.js';
import * as palette from '../charts/palette.js';
import * as par from '../charts/parallel.js';
import * as scale from '../charts/scale.js';
import * as slices from '../charts/slices.js';
import * as timeline from '../charts/timeline.js';
import { cell, csv, lines } from '../charts/export.js';
import { area } from '../charts/strip.js';
import { aligned, nearest } from '../charts/curvedata.js';

const axis = (key, labels, scaleName = 'linear') => ({
  key, scale: scaleName, size: labels.length,
  levels: labels.map((label, i) => ({ label: String(label), number: Number.isNaN(Number(label)) ? null : Number(label), lo: i, hi: i + 1, points: 1 })),
});
const lr = axis('lr', ['1e-4', '1e-3', '1e-2', '1e-1'], 'log'), opt = axis('opt', ['adam', 'sgd', 'rms'], 'category');
// A canvas that measures 6 px for each letter.
const ruler = { measureText: s => ({ width: 6 * s.length }) };

/** A canvas that takes everything and keeps the texts. */
function canvas() {
  const texts = [];
  const known = { ...ruler, texts, fillText: s => texts.push(s) };
  return new Proxy(known, { get: (o, k) => (k in o ? o[k] : () => {}), set: () => true });
}

test('a filter is taken apart as the API reads it', () => {
  assert.deepEqual(filter.parse('d[lr]=3..7'), { kind: 'd', key: 'lr', name: 'd[lr]', text: '3..7' });
  assert.deepEqual(filter.parse('p[a=b]=c=d'), { kind: 'p', key: 'a=b', name: 'p[a=b]', text: 'c=d' });
  assert.deepEqual(filter.parse('state=failed'), { kind: 'state', key: '', name: 'state', text: 'failed' });
  assert.deepEqual(filter.span('0.9..'), [0.9, Infinity]);
  assert.deepEqual(filter.span('..-2'), [-Infinity, -2]);
  assert.deepEqual(filter.span('5'), [5, 5]);
  assert.equal(filter.span('adam'), null);
});

test('a brush becomes positions, and comes back', () => {
  const where = filter.brush(['state=failed', 'p[lr]=0.1'], lr, [[1, 2]]);
  assert.deepEqual(where, ['state=failed', 'd[lr]=1..2']);
  assert.deepEqual(filter.brushed(where, lr), [[1, 2]]);
  assert.deepEqual(filter.brush(where, lr, [[0, 0], [3, 3]]), ['state=failed', 'd[lr]=0..0', 'd[lr]=3..3']);
  assert.deepEqual(filter.brush(where, lr, [[0, 3]]), ['state=failed'], 'all is not a filter');
  assert.deepEqual(filter.brush(where, lr, []), ['state=failed']);
});

test('levels of some neighbouring values are brushed with all of them', () => {
  const long = { key: 'seed', scale: 'linear', levels: [{ label: '0..9', number: 4, lo: 0, hi: 10 }, { label: '10..19', number: 14, lo: 10, hi: 20 }, { label: '20..29', number: 24, lo: 20, hi: 30 }] };
  assert.deepEqual(filter.brush([], long, [[1, 2]]), ['d[seed]=10..29']);
  assert.deepEqual(filter.chosen(['d[seed]=15..15'], long), [false, true, false]);
});

test('a check box switches one value', () => {
  let where = filter.toggleLevel([], opt, 1);
  assert.deepEqual(where, ['d[opt]=0..0', 'd[opt]=2..2']);
  where = filter.toggleLevel(where, opt, 2);
  assert.deepEqual(where, ['d[opt]=0..0']);
  assert.deepEqual(filter.toggleLevel(where, opt, 0), [], 'nothing selected is not a filter');
  assert.deepEqual(filter.chosen(['p[opt]=sgd'], opt), [false, true, false]);
  assert.deepEqual(filter.toggleLevel(['p[opt]=sgd'], opt, 2), ['d[opt]=1..2'], 'values become positions');
});

test('filters are said in words', () => {
  assert.equal(filter.words('d[lr]', ['1..2'], [lr]), 'lr: 1e-3 … 1e-2');
  assert.equal(filter.words('d[opt]', ['0..0', '2..2'], [opt]), 'opt: adam, rms');
  assert.equal(filter.words('m[loss]', ['..0.12345'], []), 'loss: ≤ 0.1235');
  assert.equal(filter.words('state', ['failed'], []), 'state: failed');
  assert.deepEqual(filter.grouped(['d[a]=1..1', 'state=failed', 'd[a]=3..3']), [['d[a]', ['1..1', '3..3']], ['state', ['failed']]]);
});

test('ticks are round, inside, and few', () => {
  for (const [lo, hi] of [[0, 1], [0.81, 0.996], [-3e-5, 7e-5], [1e6, 9e6], [-1e-12, 1e-12], [12, 12.0001]]) {
    const all = scale.ticks(lo, hi, 5);
    assert.ok(all.length >= 2 && all.length <= 12, `${lo}..${hi}: ${all}`);
    for (const v of all) assert.ok(v >= lo - (hi - lo) * 1e-6 && v <= hi + (hi - lo) * 1e-6, `${v} is outside of ${lo}..${hi}`);
  }
  assert.deepEqual(scale.ticks(3, 3, 5), [3]);
  assert.deepEqual(scale.ticks(NaN, NaN, 5), []);
  assert.ok(scale.timeTicks(0, 5 * 86400, 6).every(v => v % 86400 === 0));
});

test('a place among edges has an inverse', () => {
  const edges = [0, 1, 10, 100];
  for (const share of [0, 0.1, 1 / 3, 0.5, 0.9, 1]) assert.ok(Math.abs(scale.place(edges, scale.unplace(edges, share)) - share) < 1e-9);
  assert.equal(scale.place(edges, -5), 0);
  assert.equal(scale.place(edges, 1e9), 1);
  assert.equal(scale.place([], 1), 0);
});

test('numbers are short', () => {
  for (const [v, want] of [[0, '0'], [0.00001234, '1.23e-5'], [0.98765, '0.988'], [1234, '1234'], [12345, '12.3k'], [3.4e7, '34M'], [null, '–'], [-0.5, '-0.5'], [Infinity, '∞']]) {
    assert.equal(scale.short(v), want);
  }
});

test('a trial lies at the same place each time', () => {
  const all = Array.from({ length: 1000 }, (_, i) => scale.hash(i));
  assert.ok(all.every(v => v >= 0 && v < 1));
  const mean = all.reduce((s, v) => s + v, 0) / all.length;
  assert.ok(Math.abs(mean - 0.5) < 0.05, `mean ${mean}`);
  assert.equal(scale.hash(17), scale.hash(17));
});

test('the best stands out from either ground', () => {
  const [light, dark] = palette.themes;
  for (const t of [light, dark]) {
    const best = palette.contrast(palette.rankColor(0, t.dark), palette.rgb(t.ground));
    const worst = palette.contrast(palette.rankColor(1, t.dark), palette.rgb(t.ground));
    assert.ok(best > 10 && best > 4 * worst, `best ${best}, worst ${worst}`);
    for (const token of ['text', 'muted', 'accent', 'running', 'succeeded', 'failed', 'cancelled']) {
      for (const ground of [t.ground, t.panel]) assert.ok(palette.contrast(palette.rgb(t[token]), palette.rgb(ground)) >= 4.5, `${token} on ${ground}`);
    }
  }
  for (let i = 0; i <= 20; i++) {
    const c = palette.viridis(i / 20);
    assert.ok(palette.contrast(c, palette.rgb(palette.inkOn(c))) >= 4.5, `text on viridis ${i / 20}: ${palette.contrast(c, palette.rgb(palette.inkOn(c)))}`);
  }
});

test('pinned trials keep their colour, and no two have the same', () => {
  const one = palette.pinStyles([7], false).get(7), many = palette.pinStyles([2, 7, 12, 17, 22], false);
  assert.equal(palette.pinStyles([7, 9], false).get(7).color, one.color);
  assert.equal(new Set([...many.values()].map(s => s.color)).size, 5);
  assert.equal(new Set([...many.values()].map(s => String(s.dash))).size, 5);
});

const parallel = {
  value: 'loss', goal: 'minimize', sample: false, axes: [lr, opt], edges: [0, 1, 2, 3, 4],
  bands: [{ from: [0, 1, 3], to: [0, 1, 2], n: [1, 2, 1], rank: [0, 0.5, 1] }, { from: [0, 1, 2], to: [0, 1, 3], n: [1, 2, 1], rank: [0, 0.5, 1] }],
  lines: { trial: [5, 6, 7], levels: [[0, 1, 3], [0, 1, 2]], value: [0.5, 1.5, 3.5], rank: [0, 0.5, 1] },
};
const size = { width: 800, height: 400 };

test('lines of a parallel plot go through their levels and are found again', () => {
  const l = par.layout(parallel, size), ys = par.lineYs(l, parallel);
  assert.deepEqual(l.axes.map(a => a.key), ['lr', 'opt', 'loss']);
  ys.forEach((line, i) => {
    for (const a of [0, 1]) assert.equal(par.levelAt(l, a, line[a]), parallel.lines.levels[a][i], `line ${i} on axis ${a}`);
    assert.ok(Math.abs(par.valueAt(l, line[2]) - parallel.lines.value[i]) < 1e-6);
    assert.equal(par.hitLine(l, ys, l.axes[1].x + 2, line[1]), i);
  });
  assert.equal(par.hitLine(l, ys, l.axes[2].x - 2, ys[2][2]), 2);
  assert.equal(par.hitLine(l, ys, 5000, 100), -1);
});

test('what is on an axis, and its name, is told apart', () => {
  const l = par.layout(parallel, size);
  assert.deepEqual(par.hitAxis(l, l.axes[1].x + 5, 200), { axis: 1, name: false });
  assert.deepEqual(par.hitAxis(l, l.axes[1].x + 20, 10), { axis: 1, name: true });
  assert.equal(par.hitAxis(l, (l.axes[0].x + l.axes[1].x) / 2, 200).axis, -1);
  const b = par.brushBox(l, 0, [1, 2]);
  assert.equal(par.levelAt(l, 0, b.y + 1), 2);
  assert.equal(par.levelAt(l, 0, b.y + b.h - 1), 1);
});

test('bands stay in their levels, the best is drawn last, and sizes are in proportion', () => {
  const l = par.layout(parallel, size), all = par.bands(l, parallel);
  assert.equal(all.length, 2);
  for (const [k, pieces] of all.entries()) {
    assert.deepEqual(pieces.map(p => p.rank), [1, 0.5, 0]);
    for (const p of pieces) {
      assert.equal(par.levelAt(l, k, p.y0 + 0.01), p.from);
      assert.equal(par.levelAt(l, k, p.y0 + p.h0 - 0.01), p.from);
      assert.equal(par.levelAt(l, k + 1, p.y1 + p.h1 / 2), p.to);
    }
    const [big, small] = [pieces.find(p => p.n === 2), pieces.find(p => p.n === 1)];
    assert.ok(Math.abs(big.h0 - 2 * small.h0) < 1e-9);
  }
});

test('bands of a selection lie on the value axis of all trials', () => {
  const part = { ...parallel, edges: [1, 1.25, 1.5, 1.75, 2], bands: [parallel.bands[0], { from: [1], to: [2], n: [2], rank: [0.5] }] };
  const l = par.layout(part, size, parallel.edges);
  assert.equal(par.bands(l, part)[1][0].to, 1, 'from 1.5 to 1.75 is in the second of the four bins');
});

test('cells of heat maps are found where they are drawn, also in small multiples', () => {
  const values = lr.levels.map((_, i) => i / 10);
  const one = { x: lr, y: opt, stat: 'mean', goal: 'maximize', cells: [{ n: opt.levels.map(() => [1, 1, 1, 0]), value: opt.levels.map(() => [...values.slice(0, 3), null]) }] };
  const many = { ...one, z: axis('seed', [1, 2, 3]), cells: [one.cells[0], one.cells[0], one.cells[0]] };
  for (const d of [one, many]) {
    for (const width of [320, 700, 1400]) {
      const l = heat.layout(d, width);
      for (let k = 0; k < d.cells.length; k++) {
        for (let i = 0; i < 4; i++) {
          for (let j = 0; j < 3; j++) {
            const b = heat.box(l, { k, i, j });
            assert.deepEqual(heat.hit(l, b.x + b.w / 2, b.y + b.h / 2), { k, i, j });
            assert.ok(b.x + b.w <= l.width + 1 && b.y + b.h <= l.height, `cell ${k} ${i} ${j} is outside at ${width}`);
          }
        }
      }
      assert.equal(heat.hit(l, 1, 1), null);
    }
  }
  const c = canvas();
  heat.draw(c, heat.layout(one, 900), palette.themes[0]);
  for (const text of ['0.1', '0.2', 'adam', '1e-3', 'lr', 'opt']) assert.ok(c.texts.includes(text), `${text} is not among ${c.texts}`);
});

test('a few values that have diverged do not flatten the colours of the rest', () => {
  const row = Array.from({ length: 100 }, (_, i) => (i === 0 ? 1e9 : i / 100));
  const d = { x: axis('a', row.map((_, i) => i)), y: axis('b', [1]), stat: 'mean', goal: 'minimize', cells: [{ n: [row], value: [row] }] };
  const paint = heat.colors(d, false);
  assert.ok(paint.hi < 2, `the scale ends at ${paint.hi}`);
  assert.notDeepEqual(paint.of(0.1), paint.of(0.9));
  assert.deepEqual(paint.of(1e9), paint.of(paint.hi));
});

test('pairs of a matrix are found on both sides of the diagonal', () => {
  const a = [lr, opt, axis('seed', [1, 2])], grid = [[0, 1], [1, 0]];
  const pairs = [['lr', 'opt'], ['lr', 'seed'], ['opt', 'seed']].map(([x, y]) => ({ x, y, n: grid, rank: grid, interaction: grid }));
  const l = heat.matrixLayout({ axes: a, pairs }, 700);
  assert.equal(l.boxes.length, 6);
  for (const b of l.boxes) assert.equal(heat.matrixHit(l, b.x + 3, b.y + 3), b);
  assert.ok(l.boxes.every(b => (b.kind === 'rank') === (b.y > b.x - l.left + l.top)), 'ranks are below the diagonal');
  heat.drawMatrix(canvas(), l, palette.themes[1]);
});

test('a selection is put into the bins of all', () => {
  const all = { edges: [0, 1, 2, 3, 4], counts: [5, 5, 5, 5], quantiles: [], log: false, goal: 'minimize' };
  const part = { ...all, edges: [1, 1.5, 2, 2.5, 3], counts: [1, 2, 3, 4] };
  assert.deepEqual(hist.rebin(part, all.edges), [0, 3, 7, 0]);
  const l = hist.layout(part, all, { width: 446, height: 200 });
  for (let i = 0; i < 4; i++) assert.equal(hist.hit(l, l.x(i + 0.5)), i);
  assert.equal(hist.hit(l, l.left - 5), -1);
  hist.draw(canvas(), l, part, all, palette.themes[0]);
});

test('the best so far is found by time', () => {
  const d = { time: [1, 5, 9], best: [3, 2, 1], trial: [4, 8, 15], now: 20 };
  const l = hist.historyLayout(d, { width: 400, height: 200 });
  assert.equal(hist.historyHit(l, l.x.at(6)), 1);
  assert.equal(hist.historyHit(l, l.x.at(19)), 2);
  assert.equal(hist.historyHit(l, l.left - 30), -1);
  hist.drawHistory(canvas(), l, palette.themes[0]);
  hist.drawHistory(canvas(), hist.historyLayout({ time: [3], best: [1], trial: [0], now: null }, { width: 400, height: 200 }), palette.themes[0]);
});

test('one walks over what is not in the sweep', () => {
  const a = { key: 'lr', scale: 'log', at: 0, label: ['1', '2', '3'], x: [1, 2, 3], index: [4, -1, 6], state: ['succeeded', '', 'failed'], value: [0.5, null, null] };
  assert.equal(slices.walk(a, 0, 1), 2);
  assert.equal(slices.walk(a, 2, 1), 2);
  assert.equal(slices.walk(a, 2, -1), 0);
  const l = slices.layout(a, slices.extent({ axes: [a], of: 0.5 }), { width: 300, height: 150 });
  l.points.forEach((p, i) => assert.equal(slices.hit(l, p.x), i));
  slices.draw(canvas(), l, palette.themes[0], 1);
  assert.deepEqual(slices.extent({ axes: [{ value: [null] }], of: null }), [0, 1]);
});

test('bars of the timeline are found, running ones too', () => {
  const d = {
    from: 0, to: 100, edges: [0, 50, 100], rate: { succeeded: [3, 1], failed: [0, 1], cancelled: [0, 0] },
    bars: { trial: [1, 2, 3], node: ['a', 'a', 'b'], lane: [0, 1, 0], start: [0, 10, 60], end: [40, 20, 100], state: ['succeeded', 'failed', 'running'] },
  };
  const l = timeline.layout(d, 900, null);
  for (const r of l.rows) assert.equal(timeline.hit(l, (r.x + r.x1) / 2, r.y + r.h / 2).trial, r.trial);
  assert.equal(timeline.hit(l, 5, 5), null);
  assert.deepEqual(timeline.layout(d, 900, [50, 90]).rows.map(r => r.trial), [3]);
  timeline.draw(canvas(), l, palette.themes[0]);
  timeline.draw(canvas(), timeline.layout({ ...d, bars: undefined, lanes: [{ node: 'a', busy: [1, 0.5] }] }, 900, null), palette.themes[1]);
});

test('spreadsheets run nothing, and cells stay apart', () => {
  assert.equal(cell('=1+1'), "'=1+1");
  assert.equal(cell('-5e-3'), '-5e-3');
  assert.equal(cell('@x,"y"'), '"\'@x,""y"""');
  assert.equal(csv({ columns: ['a', 'b'], rows: [[1, null], ['x\ny', 0.5]] }), 'a,b\r\n1,\r\n"x\ny",0.5\r\n');
  assert.deepEqual(lines(ruler, 'one two three', 42), ['one two', 'three']);
});

test('curves of different steps stand in one table', () => {
  const d = { steps: [1, 3], low: [0, 2], median: [1, 3], high: [2, 4], curves: [{ trial: 5, steps: [1, 2, 4], values: [9, 8, null] }, { trial: 6, steps: [], values: [] }] };
  const table = aligned(d);
  assert.deepEqual(table, [[1, 2, 3, 4], [0, 1, 2, null], [2, 3, 4, null], [1, 2, 3, null], [9, 8, null, null], [null, null, null, null]]);
  assert.equal(nearest(table, 1, 100, 2), 0);
  assert.equal(nearest(table, 3, 1, 2), null);
});

test('samples that are not there leave a gap in a strip', () => {
  assert.equal(area([50, 255, 0, 120]), 'M0 100V50H1V100ZM2 100V99H3V0H4V100Z');
  assert.equal(area([255, 255]), '');
});

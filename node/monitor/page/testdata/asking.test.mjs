// Tests of the modules that ask the API: node --test testdata
import assert from 'node:assert/strict';
import { test } from 'node:test';

const page = { hidden: false, addEventListener() {} };
Object.assign(globalThis, { window: {}, document: page, addEventListener() {}, localStorage: { getItem: () => null }, setInterval() {}, BroadcastChannel: undefined });
if (!('navigator' in globalThis)) globalThis.navigator = {};
const { Asker } = await import('../charts/asker.js');
const { has } = await import('../charts/heat.js');
const { Stream, unknownTopics } = await import('../events.js');
const { Log } = await import('../logstream.js');
const { SweepLog } = await import('../sweeplog.js');

const json = value => ({ ok: true, json: async () => value });
const later = () => new Promise(done => setImmediate(done));

/** Questions to the API that wait for their answers. */
function questions() {
  const all = [];
  globalThis.fetch = url => new Promise(answer => all.push({ query: new URL(url, 'http://x').searchParams, answer: v => { answer(json(v)); return later(); } }));
  return all;
}

test('a chart is asked for again when something changes while its answer is on the way, or the tab is hidden', async t => {
  t.mock.timers.enable({ apis: ['setTimeout', 'Date'], now: 1e6 });
  const all = questions(), asker = new Asker(() => {});
  asker.choose('/a');
  asker.renew();
  await all[0].answer(1);
  t.mock.timers.tick(1001);
  assert.equal(all.length, 2);
  await all[1].answer(2);
  t.mock.timers.tick(5000);
  assert.equal(all.length, 2);
  page.hidden = true;
  asker.renew();
  t.mock.timers.tick(5000);
  assert.equal(all.length, 2);
  assert.ok(asker.dirty);
  page.hidden = false;
  asker.renew();
  t.mock.timers.tick(5000);
  assert.equal(all.length, 3);
});

test('only the topic that was refused is left out', () => {
  const all = ['overview', 'sweep:a', 'sweep:a-1', 'trial:a-1/7', 'trial:b/7', 'trial:b/9'];
  assert.deepEqual(unknownTopics(all, 'there is no sweep "a-1"'), ['sweep:a-1', 'trial:a-1/7']);
  assert.deepEqual(unknownTopics(all, 'b has 1 trial, and no trial 9'), ['trial:b/9']);
  assert.deepEqual(unknownTopics(all, 'a-1 has 5 trials, and no trial 7'), ['trial:a-1/7']);
  assert.deepEqual(unknownTopics(all, 'called-otherwise has 5 trials, and no trial 9'), ['trial:b/9']);
  assert.deepEqual(unknownTopics(all, 'not found'), []);
});

test('a tab that is stopped is not moved by the stream, and catches up', t => {
  t.mock.timers.enable({ apis: ['setTimeout', 'Date'], now: 1e6 });
  const seen = [], lines = [];
  const s = new Stream(state => seen.push(state.data.n), l => lines.push(l.condition), () => {});
  const request = s.request = new AbortController();
  const got = n => s.got(request, { id: '', name: 'overview', data: JSON.stringify({ n }) });
  s.report({ condition: 'live' });
  got(1);
  s.pause(true);
  got(2);
  s.leads = false;
  s.hear({ state: { data: { n: 3 } } });
  s.hear({ line: { condition: 'live' } });
  s.leads = true;
  assert.deepEqual(seen, [1]);
  assert.deepEqual(lines, ['live', 'paused', 'paused']);
  s.pause(false);
  assert.deepEqual(seen, [1, 2]);
});

test('what a stream says when it is back leaves out sweeps that may have ended', () => {
  const s = new Stream(() => {}, () => {}, () => {});
  s.request = new AbortController();
  for (const sweep of ['a', 'b']) s.got(s.request, { id: '', name: 'sweep', data: JSON.stringify({ sweep }) });
  s.topics = 'overview,sweep:b';
  s.forgetSweeps();
  assert.deepEqual([...s.states.keys()], ['sweep:b']);
});

const window_ = (offset, next, text = 'x\n') => ({ offset, next, total: 300_000, pieces: [{ stream: 'stdout', offset, time: '', data: btoa(text) }] });

test('a log whose beginning was removed ends where it begins now', async () => {
  const all = questions(), log = new Log('s', 0);
  const tail = log.tail();
  await all[0].answer(window_(200_000, 300_000));
  await tail;
  const more = log.earlier();
  await all[1].answer(window_(150_000, 150_000 + (128 << 10), 'too much\n'));
  assert.equal(all[2].query.get('offset'), '150000');
  assert.equal(all[2].query.get('limit'), '50000');
  await all[2].answer(window_(150_000, 200_000, 'rest\na\nb\n'));
  assert.equal(await more, 3);
  assert.deepEqual([log.first, log.from, log.pieces.length], [150_000, 150_000, 2]);
});

test('an answer that comes after another window is held is dropped', async () => {
  const all = questions(), log = new Log('s', 0);
  log.reset(window_(0, 100_000));
  const late = log.later(false), jump = log.show({ offset: 250_000 });
  await all[1].answer(window_(184_464, 290_000));
  await jump;
  await all[0].answer(window_(100_000, 120_000));
  assert.equal(await late, false);
  assert.deepEqual([log.from, log.next, log.pieces.length], [184_464, 290_000, 1]);
});

test('of two jumps the later one counts, in whichever order the answers come', async () => {
  for (const order of [[0, 1], [1, 0]]) {
    const all = questions(), log = new Log('s', 0);
    log.reset(window_(0, 1000));
    const jumps = [log.show({ offset: 100_000 }), log.show({ offset: 250_000 })], answers = [window_(34_464, 165_536), window_(184_464, 300_000)];
    for (const i of order) await all[i].answer(answers[i]);
    assert.deepEqual(await Promise.all(jumps), [false, true]);
    assert.deepEqual([log.from, log.next], [184_464, 300_000]);
    const late = log.show({ offset: 10 });
    assert.equal(await log.show({ offset: 200_000 }), true); // which is here already
    await all[2].answer(window_(0, 65_536));
    assert.deepEqual([await late, log.from], [false, 184_464]);
  }
});

test('a search goes on behind a part without a hit', async () => {
  const all = questions(), found = new Log('s', 0).search('x');
  await all[0].answer({ hits: [], next: 1000 });
  assert.equal(all[1].query.get('offset'), '1000');
  await all[1].answer({ hits: [{ offset: 1500 }] });
  assert.equal((await found).hits.length, 1);
});

test('a cell under the pointer may be missing in a newer answer', () => {
  const d = { cells: [{ value: [[null, 1]] }] };
  assert.ok(has(d, { k: 0, i: 0, j: 0 }));
  for (const at of [{ k: 1, i: 0, j: 0 }, { k: 0, i: 2, j: 0 }, { k: 0, i: 0, j: 1 }]) assert.ok(!has(d, at));
});

const piece = (position, index, offset, text, stream = 'stdout') => ({ position, index, run: `r${index}`, stream, offset, time: '', data: btoa(text) });

test('lines of several trials come together, each whole and once', () => {
  const log = new SweepLog('s', []);
  log.reset({ offset: 0, next: 9, pieces: [piece(1, 0, 0, 'one '), piece(2, 1, 0, 'a\nb'), piece(3, 0, 4, 'line\n'), piece(4, 0, 4, 'line\nand a'), piece(5, 1, 100, 'later\n'), piece(6, 1, 0, 'oops\n', 'stderr')] });
  assert.deepEqual(log.lines.map(l => [l.index, l.text, l.stream, l.open]), [
    [0, 'one line', 'stdout', false], [1, 'a', 'stdout', false], [1, 'b', 'stdout', true], [0, 'and a', 'stdout', true], [1, 'later', 'stdout', false], [1, 'oops', 'stderr', false]]);
  assert.equal(log.lineAt({ run: 'r0', stream: 'stdout', offset: 6, position: 3 }), 0);
  assert.equal(log.lineAt({ run: 'r1', stream: 'stdout', offset: 102, position: 5 }), 4);
});

test('what a filter selects is looked for on the whole way back', async () => {
  const all = questions(), log = new SweepLog('s', [['state', 'failed']], 'stderr');
  const tail = log.tail();
  await all[0].answer({ from: 500, next: 900, first: 100, total: 900, pieces: [] });
  assert.deepEqual([all[1].query.get('before'), all[1].query.get('state'), all[1].query.get('stream')], ['500', 'failed', 'stderr']);
  await all[1].answer({ from: 200, next: 500, first: 100, total: 900, pieces: [piece(200, 3, 0, 'found\n')] });
  await tail;
  assert.deepEqual([log.lines.map(l => l.text), log.from, log.next, log.first], [['found'], 200, 900, 100]);
  const found = log.search('x');
  await all[2].answer({ hits: [], next: 300 });
  assert.equal(all[3].query.get('from'), '300');
  await all[3].answer({ hits: [{ position: 300 }] });
  assert.equal((await found).hits.length, 1);
});

test('what is kept of the log of a sweep of many short trials is bounded', async () => {
  const log = new SweepLog('a-1', []);
  let n = 0;
  globalThis.fetch = async () => json({
    pieces: Array.from({ length: 1000 }, () => ({ position: ++n, offset: 0, run: `a.1.${n}`, stream: 'stdout', index: n, time: '', data: btoa(`trial ${n}\n`) })),
    from: n, next: n + 1000, first: 0, total: 1e6, ended: false,
  });
  await log.tail();
  for (let k = 0; k < 40; k++) await log.later(false);
  assert.equal(n, 41_000);
  assert.ok(log.pieces.length < 10_000 && log.pieces.length > 4000, `${log.pieces.length} pieces`);
  assert.ok(log.lines.length < 10_000 && log.strands.size < 10_000, `${log.lines.length} lines of ${log.strands.size} strands`);
  assert.equal(log.lines.at(-1).text, 'trial 41000');
});

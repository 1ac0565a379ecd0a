// Tests of what terminals make of escape sequences.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { look, parse, plain } from '../ansi.js';

test('colours and styles become pieces', () => {
  const { pieces } = parse('a\x1b[1;31mb\x1b[0mc\x1b[38;5;196md\x1b[48;2;1;2;3me\x1b[39;49mf');
  assert.deepEqual(pieces.map(p => [p.text, look(p.style).class]), [['a', ''], ['b', 'b fc1'], ['c', ''], ['d', ''], ['e', ''], ['f', '']]);
  assert.deepEqual(look(pieces[3].style).style, { color: 'rgb(255,0,0)' });
  assert.deepEqual(look(pieces[4].style).style, { color: 'rgb(255,0,0)', backgroundColor: 'rgb(1,2,3)' });
});

test('a line is written over as on a terminal', () => {
  for (const [line, want] of [
    ['10 %\r20 %\r100 %', '100 %'], ['long text\rab', 'abng text'], ['long text\r\x1b[Kab', 'ab'], ['long\x1b[2K\rx', 'x'], ['abc\b\bX', 'aXc'], ['a\tb', 'a       b'],
    ['a\x1b[5Gb', 'a   b'], ['done\r', 'done'], ['\x1b[32mgreen\x1b[0m\rr', 'rreen'],
  ]) assert.equal(plain(line), want, JSON.stringify(line));
});

test('nothing else comes through', () => {
  for (const line of ['\x1b]8;;javascript:x\x07link\x1b]8;;\x07', '\x1b]0;title\x1b\\link', '\x1b[2J\x1b[Hlink', '\x1b(0link', '\x00\x07link\x7f', '\x1b[999999999Clink', '\x1b[?25llink', 'link\x1b']) {
    assert.equal(plain(line), 'link', JSON.stringify(line));
  }
});

test('a line has a bound', () => {
  const { pieces, cut } = parse('x'.repeat(100_000));
  assert.equal(pieces.reduce((n, p) => n + p.text.length, 0) + cut, 100_000);
  assert.ok(cut > 90_000);
  assert.ok(parse(`\x1b[99999G${'y'.repeat(10)}`).pieces.length <= 1);
});

test('a style goes on where a sequence leaves it', () => {
  const { style } = parse('\x1b[31mred');
  assert.equal(look(parse('more', style).pieces[0].style).class, 'fc1');
});

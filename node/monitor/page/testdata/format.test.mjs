// Tests of numbers and times as the command line writes them.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { bytes, count, duration, number, percent, rate, roughly, stoppedApart } from '../format.js';

test('numbers, durations and sizes', () => {
  for (const [got, want] of [
    [count(1234567), '1,234,567'], [count(null), '–'], [number(0.123456789), '0.12346'], [number(1e-7), '1e-7'], [number(1234567.8), '1.2346e6'.replace('e6', 'e+6')], [number(3), '3'],
    [number('adam'), 'adam'], [number(NaN), 'NaN'], [number(0.1 + 0.2), '0.3'], [percent(0.631), '63.1 %'], [percent(1), '100 %'], [percent(0), '0 %'], [percent(0.004), '0.40 %'],
    [duration(0.2), '200ms'], [duration(4.26), '4.3s'], [duration(75), '1m15s'], [duration(3661), '1h1m1s'], [duration(200000), '2d7h'], [duration(undefined), '–'],
    [bytes(0), '0 B'], [bytes(1536), '1.5 KiB'], [bytes(12 * 2 ** 30), '12 GiB'], [bytes(-1), '–'], [rate(0), '0/s'], [rate(12.44), '12.4/s'], [rate(0.001), '3.6/h'], [roughly(7300), '2 h'],
  ]) assert.equal(got, want);
});

test('trials that were stopped early are not counted as cancelled', () => {
  assert.deepEqual(stoppedApart({ count: 9, cancelled: 5, stopped: 3 }), { count: 9, cancelled: 2, stopped: 3 });
  assert.deepEqual(stoppedApart({ count: 9, cancelled: 5 }), { count: 9, cancelled: 5, stopped: 0 });
});

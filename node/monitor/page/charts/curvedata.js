// Curves for uPlot: all over the same steps. No DOM.

/**
 * The band and the curves by column: steps, low, high, median, then each curve; null where one has no point.
 * @param {any} data Curves of the API @returns {(number|null)[][]}
 */
export function aligned(data) {
  const steps = [...new Set([...data.steps, ...data.curves.flatMap((/** @type {any} */ c) => c.steps)])].filter(s => s !== null).sort((a, b) => a - b);
  const at = new Map(steps.map((s, i) => [s, i]));
  const column = (/** @type {number[]} */ xs, /** @type {(number|null)[]} */ ys) => {
    /** @type {(number|null)[]} */
    const out = new Array(steps.length).fill(null);
    xs.forEach((x, i) => {
      const k = at.get(x);
      if (k !== undefined) out[k] = ys[i];
    });
    return out;
  };
  const band = (/** @type {(number|null)[]} */ ys) => filled(column(data.steps, ys));
  return [steps, band(data.low), band(data.high), band(data.median), ...data.curves.map((/** @type {any} */ c) => column(c.steps, c.values))];
}

/** Gaps between two points as the line between their neighbours in the list: bands have no gaps. @param {(number|null)[]} ys */
function filled(ys) {
  let last = -1;
  const out = [...ys];
  ys.forEach((y, i) => {
    if (y === null) return;
    for (let k = last + 1; last >= 0 && k < i; k++) out[k] = /** @type {number} */ (ys[last]) + (y - /** @type {number} */ (ys[last])) * (k - last) / (i - last);
    last = i;
  });
  return out;
}

/** The curve that is nearest to a value at a place; null when none has a value there. @param {(number|null)[][]} table @param {number} idx @param {number} value @param {number} curves */
export function nearest(table, idx, value, curves) {
  let best = null, least = Infinity;
  for (let i = 0; i < curves; i++) {
    const v = table[4 + i][idx];
    if (v !== null && Math.abs(v - value) < least) [best, least] = [i, Math.abs(v - value)];
  }
  return best;
}

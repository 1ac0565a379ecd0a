// Samples of one figure as an area. No DOM.

export const NONE = 255; // a sample that is not there

/** The path of what samples enclose with the ground; where there are none, a gap. @param {number[]} values */
export function area(values) {
  let path = '', open = false;
  values.forEach((v, i) => {
    if (v === NONE) {
      if (open) path += 'V100Z';
      open = false;
      return;
    }
    if (!open) path += `M${i} 100`;
    path += `V${100 - Math.min(100, Math.max(v, 1))}H${i + 1}`;
    open = true;
  });
  return open ? `${path}V100Z` : path;
}

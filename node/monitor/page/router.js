// Places of the page are paths. The document is the same for all of them.
import { signal } from '@preact/signals';
import { html } from './html.js';

/** Path and query of the place that is shown. */
export const place = signal({ path: location.pathname, query: location.search });

const update = () => {
  if (location.pathname !== place.value.path || location.search !== place.value.query) {
    place.value = { path: location.pathname, query: location.search };
  }
};
addEventListener('popstate', update);

/**
 * Goes to a place. Filters and other states of a view replace the place, so that Back leaves the view.
 * @param {string} path with its query @param {{replace?: boolean}} [options]
 */
export function navigate(path, { replace = false } = {}) {
  if (path === location.pathname + location.search) return;
  const moved = new URL(path, location.href).pathname !== location.pathname;
  history[replace ? 'replaceState' : 'pushState'](null, '', path);
  update();
  if (moved && !replace) {
    scrollTo(0, 0);
    document.querySelector('main')?.focus({ preventScroll: true });
  }
}

/** Reports whether a click is for this page alone: not one that opens a tab. @param {MouseEvent} e */
export const isPlainClick = e => e.button === 0 && !e.metaKey && !e.ctrlKey && !e.shiftKey && !e.altKey && !e.defaultPrevented;

/** A link within the page. @param {{href: string, children?: any, class?: string, [name: string]: any}} props */
export function Link({ href, children, ...rest }) {
  const click = (/** @type {MouseEvent} */ e) => {
    if (!isPlainClick(e)) return;
    e.preventDefault();
    navigate(href);
  };
  return html`<a href=${href} onClick=${click} ...${rest}>${children}</a>`;
}

/** The parts of a path, decoded. @param {string} path @returns {string[]} */
export function parts(path) {
  return path.split('/').filter(Boolean).map(p => {
    try {
      return decodeURIComponent(p);
    } catch {
      return p;
    }
  });
}

/** The path of a sweep, and of a tab of it. @param {string} id @param {string} [tab] */
export const sweepPlace = (id, tab = '') => `/sweeps/${encodeURIComponent(id)}${tab && `/${tab}`}`;

/** The path of a trial. @param {string} id @param {number|string} index */
export const trialPlace = (id, index) => `/sweeps/${encodeURIComponent(id)}/trials/${index}`;

/** The path of a node. @param {string} name */
export const nodePlace = name => `/nodes/${encodeURIComponent(name)}`;

// Calls of the HTTP API. docs/api.md describes it.

export const PREFIX = '/api/v1';

/** What a node answers instead of a success. */
export class Problem extends Error {
  /** @param {{status: number, code?: string, title?: string, detail?: string, hint?: string, retryAfter?: number}} p */
  constructor(p) {
    super(p.detail || p.title || `status ${p.status}`);
    this.name = 'Problem';
    this.status = p.status;
    this.code = p.code || '';
    this.title = p.title || '';
    this.detail = p.detail || this.message;
    this.hint = p.hint || '';
    this.retryAfter = p.retryAfter || 0;
  }
}

/** What is called when a session is over. The store sets it. */
export const hooks = { unauthorized: () => {} };

/**
 * A query as a string with its question mark. Arrays repeat a name; null, undefined and '' are left out. A list of `name=value`
 * strings or pairs is taken as it is.
 * @param {Record<string, unknown>|URLSearchParams|[string, string][]|undefined} query
 */
export function search(query) {
  if (!query) return '';
  const all = query instanceof URLSearchParams || Array.isArray(query) ? new URLSearchParams(query) : new URLSearchParams();
  if (!(query instanceof URLSearchParams) && !Array.isArray(query)) {
    for (const [name, value] of Object.entries(query)) {
      for (const v of Array.isArray(value) ? value : [value]) {
        if (v !== null && v !== undefined && v !== '') all.append(name, String(v));
      }
    }
  }
  const text = all.toString();
  return text && `?${text}`;
}

/** The problem in an answer. @param {Response} resp */
async function problemOf(resp) {
  /** @type {any} */
  let body = {};
  try {
    body = await resp.json();
  } catch {
    // an answer of something between the page and the node
  }
  return new Problem({ title: resp.statusText, ...body, status: resp.status, retryAfter: Number(resp.headers.get('Retry-After')) || 0 });
}

/** The key of this browser's session, which no page of another port can read. @returns {string} */
export const sessionKey = () => localStorage.getItem('mlf-session') ?? '';

/** What each request shows beside the cookie. @returns {Record<string, string>} */
const shownKey = () => (sessionKey() ? { 'Mlf-Session': sessionKey() } : {});

/**
 * Sends a request of the session. The problem is null on success. When the node refuses the session, it is over, unless another one
 * has begun since the request.
 * @param {string} path below the prefix @param {RequestInit & {query?: any}} options
 * @returns {Promise<{resp: Response, problem: Problem|null}>}
 */
export async function send(path, { query, ...options }) {
  const key = sessionKey();
  const resp = await fetch(PREFIX + path + search(query), { credentials: 'same-origin', ...options, headers: { ...options.headers, ...shownKey() } });
  if (resp.ok) return { resp, problem: null };
  const problem = await problemOf(resp);
  if (problem.status === 401 && key === sessionKey()) hooks.unauthorized();
  return { resp, problem };
}

/**
 * Asks, and gives the answer when it is a success.
 * @param {string} path below the prefix @param {RequestInit & {query?: any}} options
 * @returns {Promise<Response>}
 */
export async function ask(path, options = {}) {
  let answer;
  try {
    answer = await send(path, options);
  } catch (err) {
    if (err instanceof DOMException && err.name === 'AbortError') throw err;
    throw new Problem({ status: 0, code: 'unreachable', detail: 'nothing answers', hint: 'is mlfnode monitor still running?' });
  }
  if (answer.problem) throw answer.problem;
  return answer.resp;
}

/**
 * Gets a value.
 * @param {string} path @param {{signal?: AbortSignal, query?: any}} [options]
 * @returns {Promise<any>}
 */
export async function get(path, options = {}) {
  return (await ask(path, options)).json();
}

/**
 * Does something; gives the answer, null where there is none. `raw` is a body that is JSON already.
 * @param {string} path @param {unknown} [body] @param {{query?: any, method?: string, signal?: AbortSignal, raw?: string}} [options]
 * @returns {Promise<any>}
 */
export async function post(path, body, { method = 'POST', raw, ...options } = {}) {
  const resp = await ask(path, { method, body: raw ?? JSON.stringify(body ?? {}), headers: { 'Content-Type': 'application/json' }, ...options });
  const text = await resp.text();
  return text ? JSON.parse(text) : null;
}

/** The path of a sweep, with what stands behind it. @param {string} id @param {string} [rest] */
export function sweepPath(id, rest = '') {
  return `/sweeps/${encodeURIComponent(id)}${rest}`;
}

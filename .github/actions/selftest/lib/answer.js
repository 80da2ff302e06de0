/**
 * @typedef {object} Answer
 * @property {string} what what distmesh takes for granted
 * @property {boolean} held whether it does hold
 * @property {string} found what was seen: never a token, a signed address or an address of a machine
 * @property {boolean} needed whether distmesh cannot do without it
 *
 * @returns {Answer}
 */
export function answer(what, held, found, { needed = true } = {}) {
  return { what, held, found: String(found), needed }
}

/** A request that always comes back: what went wrong on the way has the status 0. */
export async function ask(url, options = {}) {
  try {
    const response = await fetch(url, { redirect: 'manual', signal: AbortSignal.timeout(PATIENCE_MS), ...options })
    return { status: response.status, headers: response.headers, body: Buffer.from(await response.arrayBuffer()) }
  } catch (error) {
    return { status: 0, headers: new Headers(), body: Buffer.from(error.name) }
  }
}

export function json({ body }) {
  try {
    return JSON.parse(body.toString('utf8')) ?? {}
  } catch {
    return {}
  }
}

const PATIENCE_MS = 30_000

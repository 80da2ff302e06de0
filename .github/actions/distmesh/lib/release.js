// Which release fits, and how it is got: an archive and its checksum from the repository that the action itself came from.

import { createHash } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'

import { Failure } from './failure.js'

/** There is no such release, or none for this machine. */
export class Missing extends Failure {}

/**
 * The target that releases are made for, by Node's names for platform and processor; `undefined` if there is none.
 *
 * @param {string} platform
 * @param {string} arch
 */
export function targetOf(platform, arch) {
  return {
    'linux x64': 'x86_64-unknown-linux-musl',
    'linux arm64': 'aarch64-unknown-linux-musl',
    'darwin arm64': 'aarch64-apple-darwin',
  }[`${platform} ${arch}`]
}

/** The name of an archive, without its ending; the archive has one directory of this name. */
export function assetOf(version, target) {
  return `distmesh-${target}-v${version}`
}

/**
 * Downloads an archive and compares it with its checksum.
 *
 * @param {{ server: string, repository: string, version: string, target: string }} release
 * @returns {Promise<Buffer>}
 */
export async function download({ server, repository, version, target }) {
  const url = `${server}/${repository}/releases/download/v${version}/${assetOf(version, target)}.tgz`
  const [sums, archive] = await Promise.all([get(`${url}.sha256`), get(url)])
  const wanted = /^([0-9a-f]{64})\b/i.exec(sums.toString('utf8'))?.[1]?.toLowerCase()
  if (!wanted) throw new Failure(`${url}.sha256 has no checksum`, 'look at the release, or compile it: `version: source`')
  const found = createHash('sha256').update(archive).digest('hex')
  if (found !== wanted) {
    throw new Failure(
      `${url} is not what its checksum says: sha256 ${found}, not ${wanted}`,
      'run the job again; if it stays so, do not trust this release: `version: source`',
    )
  }
  return archive
}

/**
 * The commit that a tag names, or `undefined` if there is no such tag or nobody tells.
 *
 * @param {{ api: string, repository: string, tag: string, token: string }} question
 */
export async function commitOfTag({ api, repository, tag, token }) {
  const headers = { accept: 'application/vnd.github.sha', 'user-agent': AGENT }
  if (token) headers.authorization = `Bearer ${token}`
  const url = `${api}/repos/${repository}/commits/${encodeURIComponent(tag)}`
  const response = await fetch(url, { headers, signal: AbortSignal.timeout(PATIENCE_MS) }).catch(() => undefined)
  if (!response?.ok) return undefined
  return (await response.text()).trim()
}

async function get(url) {
  for (const pause of [...PAUSES_MS, undefined]) {
    const answer = await attempt(url)
    if (answer.body) return answer.body
    if (answer.final || pause === undefined) throw refusal(url, answer)
    await sleep(pause)
  }
}

async function attempt(url) {
  try {
    const response = await fetch(url, { headers: { 'user-agent': AGENT }, signal: AbortSignal.timeout(PATIENCE_MS) })
    if (response.ok) return { body: Buffer.from(await response.arrayBuffer()) }
    const passing = response.status === 429 || response.status >= 500
    return { final: !passing, status: response.status, why: `HTTP ${response.status}` }
  } catch (error) {
    return { final: false, why: error.cause?.message ?? error.message }
  }
}

function refusal(url, { status, why }) {
  const text = `${url} cannot be downloaded: ${why}`
  if (status === 404) return new Missing(text, 'name a release that exists for this platform, or compile it: `version: source`')
  return new Failure(text, 'run the job again, or put distmesh on the machine and say `version: installed`')
}

const AGENT = 'distmesh-action'

/** An archive has a few MB. */
const PATIENCE_MS = 60_000

/** Release downloads fail now and then for seconds. */
const PAUSES_MS = [1_000, 4_000]

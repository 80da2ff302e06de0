// The REST interface: who has finished, and whether the release is there. A thousand requests an hour are all that a repository has.

import { answer, ask, json } from './answer.js'

/** @returns {AsyncGenerator<import('./answer.js').Answer>} */
export async function* restChecks(env, token) {
  const get = (path, headers = {}) =>
    ask(`${env.GITHUB_API_URL}/repos/${env.GITHUB_REPOSITORY}/actions/${path}`, {
      headers: { authorization: `Bearer ${token}`, accept: 'application/vnd.github+json', 'user-agent': 'distmesh-selftest', ...headers },
    })
  const run = `runs/${env.GITHUB_RUN_ID}`

  const list = await get(`${run}/artifacts?per_page=100`)
  yield answer("GITHUB_TOKEN with actions: read lists the run's artifacts", list.status === 200, `HTTP ${list.status}`)
  if (list.status !== 200) return
  const etag = list.headers.get('etag')
  yield answer('the list has an ETag', Boolean(etag), etag ? 'yes' : 'no', { needed: false })
  if (etag) yield* conditional(get, `${run}/artifacts?per_page=100`, etag)
  const none = await get(`${run}/artifacts?name=distmesh-no-such-artifact`)
  yield answer('the list can be asked for one name', json(none).total_count === 0, `${json(none).total_count} found`)

  const jobs = await get(`${run}/attempts/${env.GITHUB_RUN_ATTEMPT ?? 1}/jobs?per_page=100`)
  const names = (json(jobs).jobs ?? []).map((job) => job.runner_name)
  yield answer('the jobs of this attempt are listed', jobs.status === 200, `HTTP ${jobs.status}, ${names.length} jobs`)
  yield answer("a job is found by its runner's name", names.includes(env.RUNNER_NAME), names.includes(env.RUNNER_NAME) ? 'yes' : 'no', { needed: false })
  yield answer('the quota is a thousand an hour', quota(jobs, 'limit') >= 1_000, `${quota(jobs, 'limit')} an hour, ${quota(jobs, 'remaining')} left`, {
    needed: false,
  })
}

/** Another job may ask between the two: the second of two questions without news decides. */
async function* conditional(get, path, etag) {
  const asked = [await get(path, { 'if-none-match': etag }), await get(path, { 'if-none-match': etag })]
  const statuses = asked.map(({ status }) => status)
  yield answer('a list without news is a 304', statuses.includes(304), `HTTP ${statuses.join(', ')}`, { needed: false })
  const [before, after] = asked.map((response) => quota(response, 'remaining'))
  yield answer('a 304 costs no quota', statuses[1] === 304 && after >= before, `${before} left, then ${after}`, { needed: false })
}

function quota({ headers }, what) {
  return Number(headers.get(`x-ratelimit-${what}`) ?? NaN)
}

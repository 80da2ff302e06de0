// Asks GitHub the questions that no fake can answer. A few dozen requests, one artifact, which is deleted again.

import { Runner, step } from '../distmesh/lib/runner.js'
import { Failure } from '../distmesh/lib/failure.js'
import { natChecks } from './lib/nat.js'
import { restChecks } from './lib/rest.js'
import { resultsChecks } from './lib/results.js'
import { table } from './lib/table.js'

await step(new Runner(process.env, process.stdout), async (runner) => {
  const { INPUT_TITLE: title, INPUT_CHECKS: wanted = 'all', 'INPUT_GITHUB-TOKEN': token } = process.env
  const answers = []
  const add = async (checks) => {
    for await (const answer of checks) {
      answers.push(answer)
      runner.say(`${answer.held ? 'holds' : 'does not hold'}: ${answer.what} (${answer.found})`)
    }
  }
  if (wanted !== 'nat') await add(resultsChecks(runner.env))
  if (wanted === 'all') await add(restChecks(runner.env, token))
  await add(natChecks(runner.env))
  runner.summarize(table(title, answers))
  const broken = answers.filter((answer) => !answer.held && answer.needed)
  if (broken.length > 0) {
    throw new Failure(
      `distmesh takes for granted what does not hold here: ${broken.map((answer) => answer.what).join('; ')}`,
      'report this with the page of the run',
    )
  }
})

// The step itself. Its end is in post.js, which GitHub runs after the job's last step.

import { readInputs } from './lib/inputs.js'
import { prepare } from './lib/prepare.js'
import { bringUp } from './lib/primary.js'
import { Runner, step } from './lib/runner.js'
import { serve } from './lib/worker.js'

await step(new Runner(process.env, process.stdout), async (runner) => {
  const inputs = readInputs(process.env)
  runner.mask(inputs.secret)
  const job = await prepare(runner, inputs)
  await (inputs.mode === 'worker' ? serve : bringUp)(runner, inputs, job)
})

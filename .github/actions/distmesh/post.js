// The end of a primary's job: the session goes down, what it said in the background is shown, and the summary is written. Nothing
// here may fail a job whose build went well.

import { finish } from './lib/finish.js'
import { Runner, step } from './lib/runner.js'

await step(new Runner(process.env, process.stdout), finish)

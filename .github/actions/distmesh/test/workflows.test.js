// The workflows that people copy or call use only what there is.

import assert from 'node:assert/strict'
import { readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import test from 'node:test'

import { readInputs } from '../lib/inputs.js'
import { ACTION, ROOT, stepsOf } from './fake-runner.js'
import { parseYaml } from './yaml.js'

const read = (...path) => parseYaml(readFileSync(join(ROOT, ...path), 'utf8'))
const workflows = (dir) => {
  const at = join(ROOT, dir, '.github', 'workflows')
  return readdirSync(at).map((name) => join(at, name))
}
const EXAMPLES = ['examples/cmake', 'examples/chromium'].flatMap(workflows)
const OWN = workflows('.')

test('every input that a workflow gives to the action is declared and makes sense', () => {
  const declared = Object.keys(read('.github', 'actions', 'distmesh', 'action.yml').inputs)
  const steps = [...EXAMPLES, ...OWN].flatMap(stepsOf)
  assert.ok(steps.length >= 6, `${steps.length} steps`)
  for (const { with: given } of steps) {
    for (const name of Object.keys(given)) assert.ok(declared.includes(name), name)
    const literal = Object.entries(given).filter(([, value]) => !value.includes('${{'))
    readInputs(Object.fromEntries(literal.map(([name, value]) => [`INPUT_${name.toUpperCase()}`, value])))
  }
})

test('the reusable workflow hands on what it takes', () => {
  const workflow = read('.github', 'workflows', 'cluster.yml')
  const text = readFileSync(join(ROOT, '.github', 'workflows', 'cluster.yml'), 'utf8')
  for (const name of Object.keys(workflow.on.workflow_call.inputs)) {
    assert.match(text, new RegExp(`inputs\\.${name}\\b`), `${name} is declared and not used`)
  }
})

test('actions of others are pinned by commit, and say their version', () => {
  for (const file of [...EXAMPLES, ...OWN]) {
    for (const line of readFileSync(file, 'utf8').split('\n').filter((line) => /^\s*(- )?uses:/.test(line))) {
      const own = /uses: (\$\/|OWNER\/distmesh\/)/.test(line)
      assert.ok(own || /@[0-9a-f]{40} # v\d+\.\d+\.\d+$/.test(line), `${file}: ${line}`)
    }
  }
})

test('an output that is declared is set, and one that is set is declared', () => {
  const { outputs } = read('.github', 'actions', 'distmesh', 'action.yml')
  const source = readdirSync(join(ACTION, 'lib')).map((name) => readFileSync(join(ACTION, 'lib', name), 'utf8')).join('\n')
  const set = [...source.matchAll(/runner\.output\('([a-z-]+)'/g)].map(([, name]) => name)
  assert.deepEqual([...new Set(set)].sort(), Object.keys(outputs).sort())
})

/** Answers as Markdown, for the page of the run. */
export function table(title, answers) {
  const row = ({ what, held, found, needed }) => `| ${held ? '✅' : needed ? '❌' : '⚠️'} | ${escape(what)} | ${escape(found)} |`
  const held = answers.filter((answer) => answer.held).length
  const head = [`### ${escape(title)}: ${held} of ${answers.length} hold`, '', '| | what distmesh takes for granted | what was found |', '|---|---|---|']
  return [...head, ...answers.map(row), ''].join('\n')
}

function escape(text) {
  return text.replace(/[\\`*_{}[\]<>#|]/g, '\\$&').replace(/\s+/g, ' ')
}

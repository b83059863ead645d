// Runs the public suite (npm package http-cache-tests) against a cache: `node run.mjs PACKAGE BASE-URL`. Prints what
// passed and what did not, by kind, as JSON. Tests for browsers are left out.
const [dir, base] = process.argv.slice(2)
const from = path => import(`${dir}/${path}`)
const { runTests, getResults } = await from('client/runner.mjs')
const { default: suites } = await from('tests/index.mjs')
const { default: fetch } = await import(`${dir}/../node-fetch/lib/index.mjs`)
await runTests(suites, fetch, false, base)
const results = getResults()
const told = {}
for (const test of suites.flatMap(suite => suite.tests).filter(test => !test.browser_only)) {
  const kind = (told[test.kind || 'required'] ||= { passed: 0, failed: [] })
  if (results[test.id] === true) kind.passed += 1
  else kind.failed.push(test.id)
}
console.log(JSON.stringify(told))

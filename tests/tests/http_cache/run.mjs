// Runs the public suite (npm package http-cache-tests) against a cache: `node run.mjs PACKAGE BASE-URL`. Prints by kind, as
// JSON, what passed, what failed, and what the suite itself does not count as either: tests whose setup did not work, or
// that depend on others that were not passed. Tests for browsers are left out.
const [dir, base] = process.argv.slice(2)
const from = path => import(`${dir}/${path}`)
const { runTests, getResults } = await from('client/runner.mjs')
const { default: suites } = await from('tests/index.mjs')
const { determineTestResult } = await from('lib/display.mjs')
const { default: fetch } = await import(`${dir}/../node-fetch/lib/index.mjs`)
await runTests(suites, fetch, false, base)
const results = getResults()
const told = {}
for (const test of suites.flatMap(suite => suite.tests).filter(test => !test.browser_only)) {
  const kind = (told[test.kind || 'required'] ||= { passed: 0, failed: [], uncounted: [] })
  // Its own word for it is a sign: here, "setup failed" or "dependency failed".
  const sign = determineTestResult(suites, test.id, results)[2]
  if (results[test.id] === true) kind.passed += 1
  else if (['🔹', '⚪️'].includes(sign)) kind.uncounted.push(test.id)
  else kind.failed.push(test.id)
}
console.log(JSON.stringify(told))

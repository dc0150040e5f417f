// The report in Chromium, as readers have it: see `check` beside this file.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { chromium } from "playwright-core";

const axe = readFileSync("node_modules/axe-core/axe.min.js", "utf8");
const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: ["--no-sandbox"] });
let checks = 0;
const check = (what, seen, wanted) => {
  assert.deepEqual(seen, wanted, what);
  checks += 1;
};

const served = process.env.VMGATE_PAGE;
const addresses = { campaign: served };

async function open(file, { width, scheme }) {
  const address = addresses[file] ?? `file://${process.cwd()}/${file}.html`;
  const context = await browser.newContext({ viewport: { width, height: 900 }, colorScheme: scheme });
  const page = await context.newPage();
  page.setDefaultTimeout(300_000); // a busy machine draws slowly
  const said = [];
  page.on("console", (message) => said.push(message.text()));
  page.on("pageerror", (error) => said.push(String(error)));
  page.on("dialog", (dialog) => { said.push(`dialog ${dialog.message()}`); dialog.dismiss(); });
  page.on("request", (request) => { if (!request.url().startsWith("file://") && request.url() !== served) said.push(request.url()); });
  await page.goto(address);
  return { page, said, close: () => context.close() };
}

async function harmless(page, name) {
  check(`${name}: nothing of a guest ran`, await page.evaluate(() => window.owned), undefined);
  check(`${name}: one script, the page's own`, await page.locator("script").count(), 1);
  const foreign = await page.evaluate(() => [...document.querySelectorAll("*")]
    .filter((element) => ["IMG", "IFRAME", "OBJECT", "LINK"].includes(element.tagName)
      || [...element.attributes].some(({ name, value }) => name.startsWith("on") || /^\s*javascript:/i.test(value)))
    .map((element) => element.outerHTML.slice(0, 80)));
  check(`${name}: no element that a guest brought`, foreign, []);
}

for (const file of ["sample", "single", "refused", "fleet", "campaign"]) {
  for (const scheme of ["light", "dark"]) {
    for (const width of [360, 1280]) {
      const name = `${file}-${scheme}-${width}`;
      const { page, said, close } = await open(file, { width, scheme });
      await harmless(page, name);
      const [needed, there] = await page.evaluate(() => [document.scrollingElement.scrollWidth, innerWidth]);
      check(`${name}: the page is no wider than the screen (${needed} of ${there})`, needed <= there, true);
      // With everything unfolded, so that it is looked at too.
      if (file !== "fleet") await page.evaluate(() => document.querySelectorAll("details").forEach((d) => { d.open = true; }));
      await page.screenshot({ path: `${name}.png`, fullPage: file !== "fleet" });
      // Three moves of a fleet are built as sixty are, on which axe takes minutes.
      await page.evaluate(() => document.querySelectorAll(".move:nth-of-type(n+4)").forEach((move) => move.remove()));
      await page.evaluate(axe);
      const { violations } = await page.evaluate(() => window.axe.run({ resultTypes: ["violations"] }));
      const told = violations.map(({ id, impact, nodes }) => `${impact} ${id}: ${nodes[0].html.slice(0, 160)}`);
      check(`${name}: axe`, told, []);
      check(`${name}: console, dialogs and requests`, said, []);
      await close();
    }
  }
}

{
  const { page, said, close } = await open("fleet", { width: 1280, scheme: "light" });
  const shown = () => page.locator(".move:visible").count();
  const total = await shown();
  check("all moves are there", total, 60);
  await page.getByLabel("Search").fill("web10");
  check("the search leaves one", await shown(), 1);
  check("and its row in the overview", await page.locator("tbody tr[data-move]:visible").count(), 1);
  check("and says so to those who hear", await page.locator("#shown").textContent(), "1 of 60 shown");
  await page.getByLabel("Search").fill("");
  await page.getByLabel("GO", { exact: true }).uncheck();
  check("without GO none is left", await shown(), 0);
  await page.getByLabel("GO", { exact: true }).check();
  check("with it, all are", await shown(), total);
  check("console", said, []);
  await close();
}

{
  const { page, close } = await open("sample", { width: 1280, scheme: "light" });
  await page.keyboard.press("Tab");
  check("the first stop leads past the head", await page.evaluate(() => document.activeElement.className), "skip");
  await page.keyboard.press("Enter");
  check("and there it goes", await page.evaluate(() => document.activeElement.id), "moves");
  const landmarks = await page.evaluate(() => ["header", "main", "footer", "search"].filter((tag) => document.querySelector(tag)));
  check("landmarks", landmarks, ["header", "main", "footer", "search"]);
  await page.emulateMedia({ media: "print" });
  await page.evaluate(() => dispatchEvent(new Event("beforeprint")));
  check("the filter is not printed", await page.locator(".filter").isVisible(), false);
  check("what is folded is printed", await page.locator("details:not([open])").count(), 0);
  await page.screenshot({ path: "sample-print.png", fullPage: true });
  await close();
}

for (const [file, moves] of [["single", 1], ["refused", 1], ["sample", 2]]) {
  const { page, close } = await open(file, { width: 1280, scheme: "light" });
  const pdf = await page.pdf({ path: `${file}.pdf`, format: "A4" });
  const pages = pdf.toString("latin1").match(/\/Type\s*\/Page\b/g).length;
  check(`${file}: at most two pages for a VM on paper (${pages} for ${moves})`, pages <= 2 * moves, true);
  await close();
}

{
  const { page, close } = await open("campaign", { width: 1280, scheme: "light" });
  check("the campaign's title", await page.title(), "1 of 4, 1 failed: CHG <b>7</b> – vmgate");
  const asOf = () => page.locator("main > .brand").textContent();
  const before = await asOf();
  await page.waitForFunction((text) => document.querySelector("main > .brand").textContent !== text, before);
  check("it goes on by itself, to a later time", await asOf() > before, true);
  check("a progress bar says what it is of", await page.getByRole("progressbar", { name: "empty r1" }).count(), 1);
  const titles = await page.locator("main h2").allTextContents();
  for (const title of ["Can it be emptied now?", "Newest verdict on each VM", "Forecasts and what came"]) {
    check(`the page has "${title}"`, titles.includes(title), true);
  }
  process.kill(Number(process.env.VMGATE_SERVE_PID));
  await page.waitForFunction(() => document.getElementById("lost").textContent !== "");
  check("when vmgate is gone the page says that it is old", (await page.locator("#lost").textContent()).startsWith("This is old"), true);
  check("and keeps what it had", await page.locator("main h2").allTextContents(), titles);
  await close();
}

await browser.close();
console.log(`browser: ${checks} passed, 0 failed`);

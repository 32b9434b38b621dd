// How the search of the documentation ranks its results.
//
// Sphinx gives a page the same score for a word in any of its headings, so a user's page would tie with the changelog.
// Pages whose own title contains the words come first, and pages for contributors and references come last.
const LATER = /^(changelog|contributing|developer|benchmarks|validation_report|first_checklist|literature|api\/|_modules\/)/;

var Scorer = {
  score: (result) => {
    const [docName, title, , , score] = result;
    const words = (new URLSearchParams(window.location.search).get("q") || "").toLowerCase().split(/\s+/).filter(Boolean);
    const pageTitle = title.split(" > ")[0].toLowerCase();
    const inTitle = words.filter((word) => pageTitle.includes(word)).length;
    return score + 10 * inTitle - (LATER.test(docName) ? 12 : 0);
  },
  // The rest are Sphinx's own values.
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};

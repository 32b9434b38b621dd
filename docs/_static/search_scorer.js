// How the search of the documentation ranks its results.
//
// Sphinx gives a page the same score for a word in any of its headings, so a user's page would tie with the changelog.
// Here, pages whose own title contains the words come first, then pages with a section whose heading contains all of
// them. Pages for contributors and references come last.
const LATER = /^(changelog|cli|contributing|developer|benchmarks|validation_report|first_checklist|literature|api\/|_modules\/)/;

// Return the section of a page whose heading contains all words, as [heading, id, share of the heading that they are].
// Sphinx itself proposes a section only if the query is at least half as long as the heading.
function sectionWith(docName, words) {
  const file = Search._index.docnames.indexOf(docName);
  let best = null;
  for (const [heading, places] of Object.entries(Search._index.alltitles)) {
    const lower = heading.toLowerCase();
    if (!words.every((word) => lower.includes(word))) continue;
    const share = words.join(" ").length / heading.length;
    for (const [inFile, id] of places) {
      if (inFile === file && id && (best === null || share > best[2])) best = [heading, id, share];
    }
  }
  return best;
}

var Scorer = {
  score: (result) => {
    const [docName, title, anchor, , score] = result;
    const words = (new URLSearchParams(window.location.search).get("q") || "").toLowerCase().split(/\s+/).filter(Boolean);
    const pageTitle = title.split(" > ")[0].toLowerCase();
    const inTitle = words.filter((word) => pageTitle.includes(word)).length;
    let bonus = 10 * inTitle;
    if (words.length > 0 && inTitle < words.length) {
      const section = sectionWith(docName, words);
      if (section !== null) {
        const [heading, id, share] = section;
        if (!anchor) {
          // Lead to the section instead of the top of the page.
          result[1] = `${title} > ${heading}`;
          result[2] = "#" + id;
        }
        bonus = Math.max(bonus, 5 * words.length * (1 + share));
      }
    }
    return score + bonus - (LATER.test(docName) ? 12 : 0);
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

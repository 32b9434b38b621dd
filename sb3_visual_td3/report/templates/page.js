(function () {
  "use strict";
  var PRINT_WIDTH = 660; // pixels that fit between the margins of A4 and of US Letter
  var plots = [];
  var opened = [];

  function each(selector, act) {
    Array.prototype.forEach.call(document.querySelectorAll(selector), act);
  }

  each("script[data-plot]", function (source) {
    var target = document.getElementById(source.dataset.plot);
    var figure = JSON.parse(source.textContent);
    Plotly.newPlot(target, figure.data, figure.layout, { responsive: true, displayModeBar: false });
    plots.push(target);
  });

  // Whoever has no mouse scrolls a wide table with the arrow keys; it must take the focus for that.
  function letScroll() {
    each(".scroll", function (box) {
      if (box.scrollWidth > box.clientWidth) {
        box.tabIndex = 0;
      } else {
        box.removeAttribute("tabindex");
      }
    });
  }

  // Paper cannot be unfolded, and a plot keeps the width that it has on the screen.
  window.addEventListener("beforeprint", function () {
    each("details:not([open])", function (details) {
      details.open = true;
      opened.push(details);
    });
    plots.forEach(function (plot) {
      Plotly.relayout(plot, { autosize: false, width: PRINT_WIDTH });
    });
  });
  window.addEventListener("afterprint", function () {
    opened.forEach(function (details) {
      details.open = false;
    });
    opened = [];
    plots.forEach(function (plot) {
      Plotly.relayout(plot, { autosize: true, width: null });
    });
  });

  window.addEventListener("resize", letScroll);
  document.addEventListener("toggle", letScroll, true);
  letScroll();
})();

(function () {
  "use strict";
  var PRINT_WIDTH = 660; // pixels that fit between the margins of A4 and of US Letter
  var NEAR = "800px"; // a plot is drawn when it comes this close to the window
  var drawn = [];
  var opened = [];

  function each(selector, act) {
    Array.prototype.forEach.call(document.querySelectorAll(selector), act);
  }

  // Redraw instead of relayout when the width changes: a relayout leaves the legend where it was.
  function draw(target, width) {
    var figure = JSON.parse(target.parentElement.querySelector("script[data-plot]").textContent);
    if (width) {
      figure.layout.width = width;
    }
    Plotly.newPlot(target, figure.data, figure.layout, { responsive: !width, displayModeBar: false });
  }

  function drawOnce(target) {
    if (drawn.indexOf(target) < 0) {
      drawn.push(target);
      draw(target);
    }
  }

  // A comparison may have a hundred plots: draw them as they come near, so that the verdict appears at once.
  if ("IntersectionObserver" in window) {
    var observer = new IntersectionObserver(function (entries) {
      entries.forEach(function (entry) {
        if (entry.isIntersecting) {
          observer.unobserve(entry.target);
          drawOnce(entry.target);
        }
      });
    }, { rootMargin: NEAR });
    each(".plot", function (target) { observer.observe(target); });
  } else {
    each(".plot", drawOnce);
  }

  // Without a mouse, a wide table is scrolled with the arrow keys, for which it must accept the focus.
  function letScroll() {
    each(".scroll", function (box) {
      if (box.scrollWidth > box.clientWidth) {
        box.tabIndex = 0;
      } else {
        box.removeAttribute("tabindex");
      }
    });
  }

  // Before printing, unfold everything and fit the plots to the paper: they keep the width of the screen otherwise.
  window.addEventListener("beforeprint", function () {
    each("details:not([open])", function (details) {
      details.open = true;
      opened.push(details);
    });
    each(".plot", function (target) { draw(target, PRINT_WIDTH); });
  });
  window.addEventListener("afterprint", function () {
    opened.forEach(function (details) {
      details.open = false;
    });
    opened = [];
    each(".plot", function (target) {
      if (drawn.indexOf(target) < 0) {
        Plotly.purge(target);
      } else {
        draw(target);
      }
    });
  });

  window.addEventListener("resize", letScroll);
  document.addEventListener("toggle", letScroll, true);
  letScroll();
})();

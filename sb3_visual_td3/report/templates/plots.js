(function () {
  "use strict";
  document.querySelectorAll("script[data-plot]").forEach(function (source) {
    var target = document.getElementById(source.dataset.plot);
    var figure = JSON.parse(source.textContent);
    var options = { responsive: true, displayModeBar: false };
    Plotly.newPlot(target, figure.data, figure.layout, options);
  });
})();

"use strict";
(() => {
  const body = document.body, key = "rdtf-blind " + body.dataset.key;
  const inputs = [...document.querySelectorAll(".input")];
  const button = Object.fromEntries(["blind", "reveal", "save", "forget"].map(id => [id, document.getElementById(id)]));
  const state = document.getElementById("state"), result = document.getElementById("result");
  // Where a browser keeps nothing for files, the rankings last as long as the page is open.
  const store = {
    get() { try { return JSON.parse(localStorage.getItem(key)) || {}; } catch { return {}; } },
    set(value) { try { localStorage.setItem(key, JSON.stringify(value)); } catch { /* kept in memory alone */ } },
  };
  let rankings = store.get();  // by number of the input: models from best to worst

  const models = input => [...input.querySelectorAll("button.model")];
  const count = models(inputs[0]).length;
  const complete = () => inputs.filter(input => (rankings[input.dataset.input] || []).length === count);

  function shuffle(input) {
    const row = input.querySelector(".row"), all = models(input);
    for (let i = all.length - 1; i > 0; i--) {
      const j = Math.floor(Math.random() * (i + 1));
      [all[i], all[j]] = [all[j], all[i]];
    }
    row.append(...all);
  }

  function show() {
    for (const input of inputs) {
      const order = rankings[input.dataset.input] || [];
      for (const model of models(input)) {
        const place = order.indexOf(model.dataset.model);
        model.querySelector(".rank").textContent = place < 0 ? "" : place + 1;
        model.classList.toggle("ranked", place >= 0);
      }
    }
    const done = complete().length;
    if (body.classList.contains("blind")) state.textContent = `${done} of ${inputs.length} inputs ranked. A second click takes a rank back.`;
    button.reveal.hidden = !body.classList.contains("blind") || done === 0;
    button.save.hidden = button.forget.hidden = Object.keys(rankings).length === 0;
  }

  function pick(input, model) {
    if (!body.classList.contains("blind")) return;
    const number = input.dataset.input, order = rankings[number] || [], place = order.indexOf(model.dataset.model);
    if (place >= 0) order.splice(place, 1); else order.push(model.dataset.model);
    if (order.length === count - 1 && place < 0) {
      order.push(models(input).map(each => each.dataset.model).find(name => !order.includes(name)));
    }
    rankings[number] = order;
    store.set(rankings);
    show();
  }

  // Probability of at least so many wins of n by a fair coin, both sides counted.
  function signTest(wins, n) {
    const k = Math.max(wins, n - wins);
    let term = 1, tail = 0;
    for (let i = 0; i <= n; i++) {
      if (i >= k) tail += term;
      term = term * (n - i) / (i + 1);
    }
    return Math.min(1, 2 * tail / 2 ** n);
  }

  function report() {
    const ranked = complete(), orders = ranked.map(input => rankings[input.dataset.input]);
    const table = document.createElement("table"), head = table.createTHead().insertRow();
    for (const title of ["", "mean rank", "ranked first", "before RDTF", "sign test p"]) {
      const cell = document.createElement("th");
      cell.textContent = title;
      head.append(cell);
    }
    const rows = models(inputs[0]).map(model => {
      const name = model.dataset.model, places = orders.map(order => order.indexOf(name) + 1);
      const mean = places.reduce((a, b) => a + b, 0) / places.length;
      const rival = orders.some(order => order.includes("rdtf")) && name !== "rdtf";
      const wins = rival ? orders.filter(order => order.indexOf(name) < order.indexOf("rdtf")).length : 0;
      const first = places.filter(place => place === 1).length;
      return { mean, cells: [model.dataset.title, mean.toFixed(2), `${first} of ${orders.length}`,
        rival ? `${wins} of ${orders.length}` : "", rival ? signTest(wins, orders.length).toFixed(3) : ""] };
    });
    const lines = table.createTBody();
    for (const row of rows.sort((a, b) => a.mean - b.mean)) {
      const line = lines.insertRow();
      for (const text of row.cells) line.insertCell().textContent = text;
    }
    result.replaceChildren(table);
    state.textContent = `Ranked by one person on ${orders.length} of ${inputs.length} inputs.`;
  }

  for (const input of inputs) for (const model of models(input)) model.addEventListener("click", () => pick(input, model));
  button.blind.addEventListener("click", () => {
    body.classList.add("blind");
    button.blind.hidden = true;
    result.replaceChildren();
    inputs.forEach(shuffle);
    show();
  });
  button.reveal.addEventListener("click", () => {
    body.classList.remove("blind");
    button.blind.hidden = false;
    button.blind.textContent = "Go on with the blind test";
    report();
    show();
  });
  button.save.addEventListener("click", () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([JSON.stringify(rankings, null, 1)], { type: "application/json" }));
    link.download = "rankings.json";
    link.click();
    URL.revokeObjectURL(link.href);
  });
  button.forget.addEventListener("click", () => {
    rankings = {};
    store.set(rankings);
    result.replaceChildren();
    show();
  });
  show();
})();

package lifecycle

// The words of made-up names, in docker's form: an adjective, and the surname of somebody who moved science or
// computing on.
var adjectives = [...]string{
	"able", "agile", "amber", "ample", "apt", "ardent", "awake", "balmy", "bold", "boring", "brave", "bright", "brisk", "calm",
	"candid", "cheerful", "clever", "cosy", "crisp", "curious", "daring", "deft", "dewy", "eager", "earnest", "easy", "fair",
	"famous", "fern", "fine", "fluent", "fond", "frank", "free", "fresh", "gentle", "glad", "golden", "graceful", "grand", "green",
	"handy", "happy", "hardy", "honest", "humble", "jolly", "keen", "kind", "lively", "loyal", "lucid", "lush", "mellow", "merry",
	"mild", "misty", "modest", "mossy", "neat", "nimble", "noble", "patient", "placid", "plucky", "polite", "proud", "quick",
	"quiet", "rapid", "ready", "rustic", "serene", "sharp", "shady", "silent", "sincere", "sleek", "snug", "sober", "spry",
	"steady", "stoic", "sturdy", "sunny", "swift", "tender", "tidy", "tranquil", "trusty", "upbeat", "verdant", "vivid", "warm",
	"wise", "witty", "zealous", "zen",
}

var surnames = [...]string{
	"abel", "allen", "ampere", "archimedes", "babbage", "banach", "banzai", "bardeen", "bartik", "bell", "bhabha", "bohr",
	"boltzmann", "booth", "borg", "bose", "brahe", "brown", "cannon", "carson", "cartan", "cerf", "chandra", "clarke", "codd",
	"cohen", "conway", "curie", "darwin", "davinci", "dijkstra", "dirac", "easley", "edison", "einstein", "engelbart", "euclid",
	"euler", "faraday", "fermat", "fermi", "feynman", "franklin", "galileo", "galois", "gauss", "germain", "goldberg", "goodall",
	"haber", "hamilton", "hawking", "heisenberg", "hermann", "hertz", "hilbert", "hodgkin", "hopper", "hubble", "hypatia",
	"jackson", "johnson", "joliot", "keldysh", "keller", "kepler", "khorana", "kilby", "knuth", "kowalevski", "lalande", "lamarr",
	"lamport", "laplace", "leakey", "leavitt", "lederman", "lichterman", "linnaeus", "liskov", "lovelace", "maxwell", "mayer",
	"mccarthy", "mcclintock", "meitner", "mendel", "mendeleev", "mirzakhani", "morse", "moser", "napier", "nash", "newton",
	"nightingale", "nobel", "noether", "pascal", "pasteur", "payne", "perlman", "pike", "planck", "poincare", "poitras", "ptolemy",
	"raman", "ramanujan", "ride", "ritchie", "rosalind", "rubin", "saha", "sammet", "shannon", "shirley", "sinoussi", "snyder",
	"spence", "stallman", "swanson", "swirles", "tesla", "tharp", "thompson", "torvalds", "turing", "varahamihira", "vaughan",
	"villani", "volhard", "wescoff", "wiles", "williams", "wilson", "wing", "wozniak", "wright", "wu", "yalow", "yonath",
}

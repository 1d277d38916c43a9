// A line that was too long once and that was broken anew by a formatter, which put the word that did not fit on a
// line
// (of its own) and left what followed where it was, and it did the same with a sentence whose last word did not
// fit.
// A half of a line is left here
// amid a sentence, which goes on.

// What is right as it is:
//  - an item of a list,
//  - another item, whose second line stands below its first, however short the first one was made by its author
//    before it;
//  - and another item, whose second line has lost the two columns by which it would have been below the first
//  one.
// A sentence that ends.
// Another sentence, and what is indented:
//     y = a x
//     + b
// [part]
// What is quoted.
int comments;
// [/part]

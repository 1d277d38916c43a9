// Includes nothing: what it names comes from the precompiled header.
int steps_of_default() { return atmanrl::experiment_options{}.steps; }

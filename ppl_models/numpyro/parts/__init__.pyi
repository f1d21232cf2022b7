from .program import Program as Program, named_parameters as named_parameters, with_parameters as with_parameters

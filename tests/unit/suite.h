/*
 * A CUnit suite as a program: runs its tests, fails if one of them does
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_UNIT_SUITE_H
#define TESTS_UNIT_SUITE_H

#include <stdlib.h>
#include <CUnit/Basic.h>
#include <CUnit/CUnit.h>

static inline int run_suite(const char *name, const CU_TestInfo *tests)
{
    unsigned failed;

    if (CU_initialize_registry() != CUE_SUCCESS) {
        return EXIT_FAILURE;
    }
    CU_pSuite suite = CU_add_suite(name, NULL, NULL);

    for (; tests->pName; tests++) {
        CU_add_test(suite, tests->pName, tests->pTestFunc);
    }
    CU_basic_set_mode(CU_BRM_VERBOSE);
    CU_basic_run_tests();
    failed = CU_get_number_of_failures() || !CU_get_number_of_tests_run();
    CU_cleanup_registry();
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

#endif /* TESTS_UNIT_SUITE_H */
